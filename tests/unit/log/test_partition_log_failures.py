"""Appends and fsyncs that the file system refuses: taken back whole, or final (rule D7)."""

import errno
from itertools import count

import pytest
from log_files import DIRECTORY, assert_indexes_are_right, batch, files, opened
from watched_files import WatchedFileSystem

from streamkit.log import decode
from streamkit.log.partition_log import PartitionLog
from streamkit.seams import MemoryFileSystem

SEGMENT_BYTES = 300  # three batches of the usual 96 bytes
INTERVAL_BYTES = 150


def opened_small(fs: MemoryFileSystem | WatchedFileSystem) -> PartitionLog:
    return opened(fs, segment_bytes=SEGMENT_BYTES, index_interval_bytes=INTERVAL_BYTES)


def append(log: PartitionLog, *names: str) -> tuple[int, int]:
    """Append a batch of two records for each name."""
    return log.append([batch(name.encode(), b"%d" % len(name) * 20, timestamps_ms=[1, 2]) for name in names])


def names(log: PartitionLog) -> list[str]:
    """Return the names of all batches, as a reader sees them."""
    values = decode(log.read(0, bytes_max=1 << 30)).values
    return [value.decode() for value in values[::2] if value is not None]


def fails_once(fs: WatchedFileSystem, number: int, *changes: str) -> list[tuple[str, str]]:
    """Make the change of this number fail, counted over the named kinds; return a list that will hold it."""
    numbers = count()
    failed: list[tuple[str, str]] = []

    def watch(change: str, path: str) -> None:
        if change in changes and next(numbers) == number:
            failed.append((change, path))
            raise OSError(errno.ENOSPC, "no space left on device")

    fs.watch = watch
    return failed


def test_an_append_that_fails_in_the_middle_of_several_segments_is_taken_back_whole() -> None:
    """Fails each write and creation in turn; the next append, and what is found at open, are as if nothing was."""
    failures = 0
    for number in count():
        fs = WatchedFileSystem()
        log = opened_small(fs)
        append(log, "a", "b")
        log.sync(4)
        before = files(fs)
        failed = fails_once(fs, number, "write", "create")
        try:
            append(log, *"cdefghij")
        except OSError:
            assert failed[0][1].endswith(".log"), "index files are not worth failing for"
        else:
            if not failed:
                break
            continue
        failures += 1
        assert (log.end_offset, names(log), files(fs)) == (4, ["a", "b"], before)
        assert append(log, *"klmnopqr") == (4, 19)
        log.sync(20)
        assert names(log) == list("abklmnopqr")
        log.close()
        assert_indexes_are_right(fs, INTERVAL_BYTES)
        assert names(opened_small(fs)) == list("abklmnopqr")
        assert_indexes_are_right(fs, INTERVAL_BYTES)
    assert failures >= 6


def test_what_is_taken_back_stays_taken_back_after_a_power_cut() -> None:
    """Removed files are removed last to first and durably, before anything else is appended."""
    fs, changes = WatchedFileSystem(), []
    log = opened_small(fs)
    append(log, "a")
    log.sync(2)

    def watch(change: str, path: str) -> None:
        changes.append((change, path))
        if change == "write" and path == f"{DIRECTORY}/{12:020d}.log":
            raise OSError(errno.ENOSPC, "no space left on device")

    fs.watch = watch
    with pytest.raises(OSError, match="no space"):
        append(log, *"bcdefghij")
    removed = [path for change, path in changes if change == "remove" and path.endswith(".log")]
    assert removed == [f"{DIRECTORY}/{offset:020d}.log" for offset in (12, 6)]
    after = changes[changes.index(("remove", removed[-1])) :]
    assert ("sync_dir", DIRECTORY) in after
    assert after.index(("sync_dir", DIRECTORY)) < after.index(("sync", f"{DIRECTORY}/{0:020d}.log"))
    assert isinstance(fs.inner, MemoryFileSystem)
    assert names(opened_small(fs.inner.crashed())) == ["a"]


def test_a_refused_fsync_is_final() -> None:
    """D7: after a failed fsync nobody knows what is on the disk, so nothing is tried again or acknowledged."""
    fs = WatchedFileSystem()
    log = opened_small(fs)
    append(log, "a")
    failed = fails_once(fs, 0, "sync")
    with pytest.raises(OSError, match="no space"):
        log.sync(2)
    assert failed
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            log.sync(0)
        with pytest.raises(OSError, match="no space"):
            append(log, "b")
    assert (log.durable_offset, log.end_offset) == (0, 2)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("change", ["sync", "sync_dir"])
def test_an_fsync_refused_while_a_segment_is_rolled_is_final_too(change: str, number: int) -> None:
    fs = WatchedFileSystem()
    log = opened_small(fs)
    append(log, "a", "b")
    log.sync(4)
    append(log, "c")
    failed = fails_once(fs, number, change)
    try:
        append(log, *"defghij")
    except OSError:
        tried: list[str] = []
        fs.watch = lambda change, path: tried.append(change)
        with pytest.raises(OSError, match="no space"):
            log.sync(6)
        with pytest.raises(OSError, match="no space"):
            append(log, "k")
        assert (log.durable_offset, tried) == (4, [])
        assert names(opened_small(fs))[:2] == ["a", "b"]
    else:
        assert not failed


@pytest.mark.parametrize("change", ["remove", "sync_dir", "truncate", "sync"])
def test_an_append_that_cannot_be_taken_back_is_final(change: str) -> None:
    fs = WatchedFileSystem()
    log = opened_small(fs)
    append(log, "a")
    log.sync(2)
    refused: list[str] = []

    def watch(this: str, path: str) -> None:
        if this == "write" and path == f"{DIRECTORY}/{12:020d}.log":
            refused.append(this)
            raise OSError(errno.ENOSPC, "no space left on device")
        if refused and this == change:
            raise OSError(errno.EIO, "input/output error")

    fs.watch = watch
    with pytest.raises(OSError, match="input/output error"):
        append(log, *"bcdefghij")
    fs.watch = lambda change, path: None
    with pytest.raises(OSError, match="input/output error"):
        append(log, "k")
    with pytest.raises(OSError, match="input/output error"):
        log.sync(2)
    assert (log.durable_offset, log.end_offset) == (2, 2)
