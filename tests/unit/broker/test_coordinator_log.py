"""The transaction log's frames: what a crash may take, what damage looks like, and the rewrite."""

import pytest

from streamkit.broker.coordinator_log import CoordinatorLog
from streamkit.errors import CorruptBatchError, LogError
from streamkit.seams import MemoryFileSystem

PATH = "log/transactions.log"


def made(fs: MemoryFileSystem, bodies: list[bytes]) -> CoordinatorLog:
    log = CoordinatorLog(fs, PATH)
    log.rewrite(bodies)
    return log


def content(fs: MemoryFileSystem) -> bytes:
    file = fs.open(PATH)
    return file.read_at(0, file.size_bytes())


def replaced(data: bytes) -> MemoryFileSystem:
    fs = MemoryFileSystem()
    file = fs.open(PATH, create=True)
    file.write_at(0, data)
    file.sync()
    return fs


def test_what_was_appended_and_synced_is_loaded_again() -> None:
    fs = MemoryFileSystem()
    log = made(fs, [b"first"])
    log.sync(log.append(b"second"))
    log.append(b"third")
    assert CoordinatorLog(fs.crashed(), PATH).load() == [b"first", b"second"]
    assert CoordinatorLog(fs, PATH).load() == [b"first", b"second", b"third"]


def test_a_torn_tail_is_cut_wherever_it_is_torn() -> None:
    fs = MemoryFileSystem()
    log = made(fs, [b"first"])
    log.sync(log.append(b"second"))
    kept_bytes = len(content(fs))
    log.append(b"third")
    log.append(b"fourth")
    data = content(fs)
    for size_bytes in range(kept_bytes, len(data)):
        torn = replaced(data[:size_bytes])
        loaded = CoordinatorLog(torn, PATH)
        bodies = loaded.load()
        assert bodies[:2] == [b"first", b"second"]
        loaded.sync(loaded.append(b"next"))
        assert CoordinatorLog(torn, PATH).load() == [*bodies, b"next"]


def test_an_unsynced_frame_that_a_power_cut_emptied_is_cut_with_all_after_it() -> None:
    """Pages may reach the disk in any order: the last frame whole, the one before it zeros."""
    fs = MemoryFileSystem()
    log = made(fs, [b"first"])
    begin = len(content(fs))
    log.append(b"second")
    middle = len(content(fs))
    log.append(b"third")
    data = content(fs)
    holed = replaced(data[:begin] + bytes(middle - begin) + data[middle:])
    assert CoordinatorLog(holed, PATH).load() == [b"first"]


def test_damage_to_any_synced_byte_is_an_error_that_names_file_and_byte() -> None:
    fs = MemoryFileSystem()
    log = made(fs, [b"first", b"second"])
    log.sync(log.append(b"third"))
    synced_bytes = len(content(fs))
    log.sync(log.append(b"fourth"))
    data = content(fs)
    for position in range(synced_bytes):
        damaged = replaced(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(CorruptBatchError) as caught:
            CoordinatorLog(damaged, PATH).load()
        assert caught.value.file == PATH
        assert caught.value.position <= position
        assert content(damaged) != data, "nothing may be repaired by itself"


def test_a_file_that_lost_synced_bytes_at_its_end_is_damaged() -> None:
    data = content_of_rewrite()
    with pytest.raises(CorruptBatchError):
        CoordinatorLog(replaced(data[:-1]), PATH).load()


def content_of_rewrite() -> bytes:
    fs = MemoryFileSystem()
    made(fs, [b"first", b"second"])
    return content(fs)


def test_a_frame_inside_a_body_is_not_taken_for_a_frame() -> None:
    inner = content_of_rewrite()
    fs = MemoryFileSystem()
    log = made(fs, [b"first"])
    log.append(inner)
    data = content(fs)
    assert CoordinatorLog(replaced(data[:-1]), PATH).load() == [b"first"]


def test_one_sync_serves_all_who_appended_before_it() -> None:
    changes: list[str] = []
    fs = MemoryFileSystem(changes.append)
    log = made(fs, [b"first"])
    positions = [log.append(b"%d" % index) for index in range(5)]
    before = changes.count("sync")
    for position in positions:
        log.sync(position)
    assert changes.count("sync") == before + 1


def test_a_rewrite_replaces_everything_and_keeps_positions_growing() -> None:
    fs = MemoryFileSystem()
    log = made(fs, [b"first"])
    earlier = [log.append(b"x" * 100) for _ in range(10)]
    log.rewrite([b"sum"])
    log.sync(earlier[-1])
    later = log.append(b"next")
    assert later > earlier[-1]
    log.sync(later)
    assert CoordinatorLog(fs.crashed(), PATH).load() == [b"sum", b"next"]


class FullDisk:
    """Refuses one kind of change while `refused` names it."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def __call__(self, change: str) -> None:
        if change in self.refused:
            raise OSError(28, "No space left on device")


def test_an_append_to_a_full_disk_leaves_the_log_as_it_was() -> None:
    disk = FullDisk()
    fs = MemoryFileSystem(disk)
    log = made(fs, [b"first"])
    disk.refused = {"write"}
    with pytest.raises(LogError, match="could not be written"):
        log.append(b"refused")
    disk.refused = set()
    log.sync(log.append(b"second"))
    assert CoordinatorLog(fs.crashed(), PATH).load() == [b"first", b"second"]


def test_after_a_failed_sync_nothing_is_acknowledged_any_more() -> None:
    disk = FullDisk()
    log = made(MemoryFileSystem(disk), [b"first"])
    position = log.append(b"second")
    disk.refused = {"sync"}
    with pytest.raises(LogError, match="could not be synced"):
        log.sync(position)
    disk.refused = set()
    for attempt in (lambda: log.sync(position), lambda: log.append(b"third"), lambda: log.rewrite([b"sum"])):
        with pytest.raises(LogError, match="has stopped"):
            attempt()


def test_a_rewrite_that_fails_leaves_the_old_file_in_use() -> None:
    disk = FullDisk()
    fs = MemoryFileSystem(disk)
    log = made(fs, [b"first"])
    disk.refused = {"write"}
    with pytest.raises(LogError, match="could not be rewritten"):
        log.rewrite([b"sum"])
    disk.refused = set()
    log.sync(log.append(b"second"))
    assert CoordinatorLog(fs.crashed(), PATH).load() == [b"first", b"second"]


def test_a_closed_log_refuses_everything() -> None:
    log = made(MemoryFileSystem(), [b"first"])
    log.close()
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append(b"second")
