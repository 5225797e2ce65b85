"""The state store on disk: RocksDB through rocksdict, and the only importer of it.

Invariants:

- Raw mode, options and column families are always passed: without them rocksdict opens in the mode its JSON file
  names, and that mode unpickles values (rule D12).
- One column family and no WAL. Every change is one batch in one memtable and memtables are flushed in order, so what
  a crash leaves is the store after some earlier `write`, whole (rule D6).
- Nothing that rocksdict hands out (iterators, handles) leaves this module: it would keep the database open after
  `close`, and the next open would find it locked.
- rocksdict raises plain `Exception`; it becomes an error of ours in `_translated` and nowhere else.

Not here: when to flush, and the position that goes into each batch (`runtime`).
"""

import collections
import contextlib
import itertools
import os
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import rocksdict
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from streamkit.errors import StateError, StoreClosedError, StoreDamagedError, StoreLockedError
from streamkit.state.entries import FlatEntries
from streamkit.state.ordering import in_order
from streamkit.state.protocols import Changes

__all__ = ["RocksDBResources", "RocksDBStore"]

_MIB: Final = 1024 * 1024
_WRITE_BUFFER_BYTES_MAX: Final = 32 * _MIB
_SCAN_ROWS_FIRST: Final = 16
_SCAN_ROWS_MAX: Final = 1024
_BLOOM_BITS: Final = 10


class RocksDBResources:
    """The memory that all stores of a process share: blocks read and tables being written, under one budget.

    Args:
        memory_bytes: The budget, 64 KiB or more. Half of it at most is for writes. It is soft: a store hands memory
            back at its next write.
    """

    def __init__(self, memory_bytes: int = 256 * _MIB) -> None:
        """Reserve nothing yet; the memory grows with use."""
        assert memory_bytes >= 64 * 1024, "a store needs 64 KiB at least"
        self._cache = Cache(memory_bytes)
        self._write_buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            memory_bytes // 2, False, self._cache
        )
        self._write_buffer_bytes = min(memory_bytes // 8, _WRITE_BUFFER_BYTES_MAX)

    def options(self, *, create: bool) -> Options:
        """Return the options of one store; with `create` a missing database is made."""
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_bloom_filter(_BLOOM_BITS, False)
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        options = Options(raw_mode=True)
        options.create_if_missing(create)
        options.set_paranoid_checks(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_manager(self._write_buffers)
        options.set_write_buffer_size(self._write_buffer_bytes)
        options.set_compression_type(DBCompressionType.lz4())
        # A write that must wait holds the GIL, and with it every heartbeat. Compaction can fall behind a burst by
        # this many files before anyone is slowed down.
        options.set_level_zero_slowdown_writes_trigger(64)
        options.set_level_zero_stop_writes_trigger(128)
        options.set_max_write_buffer_number(4)
        # RocksDB's own log file is of no use to a reader of ours; keep it from growing.
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(_MIB)
        options.set_stats_dump_period_sec(0)
        options.set_stats_persist_period_sec(0)
        return options


class RocksDBStore:
    """One RocksDB database. One thread uses it; `flush` alone may run beside on another.

    Args:
        path: Its directory; its parent exists. Empty or missing: a new, empty store.
        resources: Shared by all stores of the process.
        read_only: Look at it without changing it; it must exist.
    """

    def __init__(self, path: str, *, resources: RocksDBResources, read_only: bool = False) -> None:
        """Open or make the database.

        Raises:
            StoreLockedError: Somebody has it open, here or in another process.
            StoreDamagedError: A file is damaged or missing. The files are as they were.
            StateError: The disk refuses.
        """
        self.path, self._resources = path, resources
        self._db: Rdict | None = None
        self._cursors: weakref.WeakSet[_Cursor] = weakref.WeakSet()
        # Where tables lie but CURRENT is gone, RocksDB would start a new, empty database over them.
        create = not read_only and not _has_tables(path)
        access = AccessType.read_only(False) if read_only else AccessType.read_write()
        self._read_only = read_only
        with _translated(path):
            self._db = Rdict(path, options=resources.options(create=create), column_families={}, access_type=access)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where absent: one multi-get, in key order.

        Cost: about 1 us a key in order, 0.3 us where absent; sorts `keys` if they are not.
        """
        db = self._opened()
        ordered: list[Any] = sorted(keys)
        with _translated(self.path):
            found = cast("list[bytes | None]", db.get(ordered))
        if ordered == keys:
            return found
        values = dict(zip(ordered, found, strict=True))
        return [values[key] for key in keys]

    def scan(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of `[begin, end)` as they are now, reading up to 1,024 ahead.

        Raises:
            StoreDamagedError: The scan met damage.
            StoreClosedError: The store was closed before the scan came to its end.
        """
        db = self._opened()
        with _translated(self.path):
            cursor = _Cursor(db, begin)
            self._cursors.add(cursor)
        return self._rows(cursor, end)

    def _rows(self, cursor: "_Cursor", end: bytes) -> Iterator[tuple[bytes, bytes]]:
        row_count = _SCAN_ROWS_FIRST
        while True:
            with _translated(self.path):
                rows = cursor.read(end, row_count)
            if not rows:
                return
            yield from rows
            row_count = min(4 * row_count, _SCAN_ROWS_MAX)

    def write(self, changes: Changes) -> None:
        """Apply all changes in one batch, without the WAL.

        Raises:
            StoreDamagedError: Earlier work in the background met damage. Nothing was written.
            StateError: The disk refuses. Nothing was written.
        """
        if not changes.values and not changes.delete_ranges:
            self._opened()
            return
        with _translated(self.path):
            try:
                self._opened().write(_batch(changes), _NOT_WAITING)
            except Exception as error:
                if "Write stall" not in str(error):
                    raise
                # `flush` waits outside the GIL. The batch is used up even though it failed.
                self.flush()
                self._opened().write(_batch(changes), _WAITING)

    def ingest(self, entries: Sequence[FlatEntries]) -> None:
        """Sort the entries into a table beside the database and hand it over; the last value of a key counts.

        A crash leaves all of it or nothing, and perhaps the file `<path>.table`, which the next call overwrites.

        Cost: that of `in_order`, as much for the table; the disk's time.

        Raises:
            StoreDamagedError, StateError: As of `write`. Nothing was applied.
        """
        db = self._opened()
        if not any(len(part.lengths) for part in entries):
            return
        path = f"{self.path}.table"
        with _translated(self.path):
            writer = rocksdict.SstFileWriter(self._resources.options(create=False))
            writer.open(path)
            for keys, values in in_order(entries):
                if None in values:
                    _put_or_delete(writer, keys, values)
                else:
                    # In C, without a step in Python for each.
                    collections.deque(map(writer.__setitem__, keys, values), maxlen=0)
            writer.finish()
            moving = rocksdict.IngestExternalFileOptions()
            moving.set_move_files(True)
            db.ingest_external_file([path], moving)

    def flush(self) -> None:
        """Write what is in memory to a table and sync it."""
        db = self._opened()
        with _translated(self.path):
            db.flush()

    def size_bytes(self) -> int:
        """Return the bytes of its tables, on disk and in memory."""
        db = self._opened()
        with _translated(self.path):
            return sum(db.property_int_value(name) or 0 for name in _SIZE_PROPERTIES)

    def close(self) -> None:
        """Flush and close; a scan that is still open raises when it is read on. Closing twice does nothing.

        Raises:
            StoreDamagedError, StateError: The flush failed; the store is closed all the same.
        """
        if self._db is None:
            return
        db, self._db = self._db, None
        for cursor in list(self._cursors):
            cursor.drop()
        with _translated(self.path):
            try:
                if not self._read_only:
                    db.flush()
            finally:
                db.close()

    def _opened(self) -> Rdict:
        if self._db is None:
            raise StoreClosedError("the store is closed", detail=self.path)
        return self._db


class _Cursor:
    """Holds the iterators of one scan where `close` can take them away.

    No other name may keep them: an error's traceback keeps the locals of every frame it passed, and while someone looks
    at the error the database would stay open, and locked. The bound is checked here, as rocksdict's own upper bound
    points into bytes that Python may have freed.
    """

    __slots__ = ("__weakref__", "_db", "_items", "_last_key")

    def __init__(self, db: Rdict, begin: bytes) -> None:
        # It gives whole pairs, in half the time that asking a plain iterator for each would take.
        self._items: Any = db.items(from_key=begin)
        self._db: Rdict | None = db
        self._last_key = begin

    def read(self, end: bytes, row_count: int) -> list[tuple[bytes, bytes]]:
        """Return the next pairs below `end`, at most `row_count`, none at its end."""
        if self._items is None:
            raise StoreClosedError("the store was closed while it was scanned")
        rows = list(itertools.islice(self._items, row_count))
        if rows:
            self._last_key = rows[-1][0]
        if len(rows) < row_count:
            self._check_end()
        return rows if self._last_key < end else rows[: bisect_left(rows, (end,))]

    def _check_end(self) -> None:
        """Raise if it was damage that ended the rows: only the status of an iterator tells it from the last pair."""
        assert self._db is not None, "it is dropped together with the rows"
        iterator = self._db.iter()
        try:
            iterator.seek(self._last_key)
            if iterator.valid():
                iterator.next()
            iterator.status()
        finally:
            del iterator

    def drop(self) -> None:
        self._items = self._db = None


def _put_or_delete(writer: rocksdict.SstFileWriter, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
    for key, value in zip(keys, values, strict=True):
        if value is None:
            del writer[key]
        else:
            writer[key] = value


def _write_options(*, no_slowdown: bool) -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment,method-assign]  # the stub says method; it is a property
    options.no_slowdown = no_slowdown
    return options


_NOT_WAITING: Final = _write_options(no_slowdown=True)
_WAITING: Final = _write_options(no_slowdown=False)
_SIZE_PROPERTIES: Final = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")


def _batch(changes: Changes) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    for begin, end in changes.delete_ranges:
        if begin < end:  # RocksDB refuses a batch with a range that ends before it begins
            batch.delete_range(begin, end)
    put, delete = batch.put, batch.delete
    for key, value in changes.values.items():
        if value is None:
            delete(key)
        else:
            put(key, value)
    return batch


def _has_tables(path: str) -> bool:
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return any(name.startswith("MANIFEST") or name.endswith(".sst") for name in names)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn what rocksdict raises into an error of ours."""
    try:
        yield
    except StateError:
        raise
    except rocksdict.DbClosedError as error:
        raise StoreClosedError("the store is closed", detail=path) from error
    except Exception as error:
        raise _classified(str(error), path) from error


_DAMAGE: Final = (
    "Corruption",
    "IO error: No such file",
    "does not exist (create_if_missing is false)",
    "Column families not opened",
    "File exists",
)
"""What messages of damage say: a checksum or length is wrong; a table or MANIFEST is missing; CURRENT is missing; the
database is not one of ours; there is no directory at all."""


def _classified(message: str, path: str) -> StateError:
    detail = f"{path}: {message}"
    if "lock hold by current process" in message or "While lock file" in message:
        return StoreLockedError(
            f"the store {path} is in use",
            detail=message,
            hint="stop the other worker, or pass another --state-dir",
        )
    if any(sign in message for sign in _DAMAGE):
        return StoreDamagedError(f"the store {path} is damaged", detail=message)
    return StateError("the store cannot be read or written", detail=detail, hint="look at the disk's space and rights")
