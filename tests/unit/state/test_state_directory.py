import orjson
import pytest

from streamkit.errors import ConfigError, StoreLockedError
from streamkit.seams import FileSystem, MemoryFileSystem
from streamkit.state import StateDirectory


def open_directory(fs: FileSystem, *, job: str = "count", task: str = "0_1", log_id: str = "log") -> StateDirectory:
    return StateDirectory.open(fs, "state", job=job, task=task, log_id=log_id)


def read(fs: FileSystem, path: str) -> bytes:
    file = fs.open(path)
    return file.read_at(0, file.size_bytes())


def write(fs: FileSystem, path: str, data: bytes) -> None:
    file = fs.open(path, create=True)
    file.truncate(0)
    file.write_at(0, data)
    file.sync()


def with_store() -> MemoryFileSystem:
    """A closed directory that holds a store."""
    fs = MemoryFileSystem()
    directory = open_directory(fs)
    write(fs, f"{directory.store_path}/CURRENT", b"precious")
    directory.close()
    return fs


def test_a_new_directory_says_whose_it_is() -> None:
    fs = MemoryFileSystem()
    directory = open_directory(fs)
    assert directory.path == "state/count/0_1"
    assert directory.store_path == "state/count/0_1/rocksdb"
    owner = orjson.loads(read(fs, "state/count/0_1/owner"))
    assert owner == {"format": 1, "job": "count", "task": "0_1", "log_id": "log"}


def test_a_directory_is_held_by_one_at_a_time_and_comes_back_as_it_was() -> None:
    fs = with_store()
    held = open_directory(fs)
    with pytest.raises(StoreLockedError, match="0_1 is in use") as refused:
        open_directory(fs)
    assert "0_1.lock" in refused.value.detail
    assert "--state-dir" in refused.value.hint
    held.close()
    held.close()
    open_directory(fs)
    assert read(fs, "state/count/0_1/rocksdb/CURRENT") == b"precious"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"job": "other"}, "belongs to task 0_1 of job other"),
        ({"task": "7_7"}, "belongs to task 7_7 of job count"),
        ({"format": 2, "job": "other"}, "newer streamkit"),
    ],
)
def test_what_is_somebody_elses_is_refused_and_left_alone(said: dict[str, object], message: str) -> None:
    fs = with_store()
    owner = orjson.dumps({"format": 1, "job": "count", "task": "0_1", "log_id": "log"} | said)
    write(fs, "state/count/0_1/owner", owner)
    for _ in range(2):  # the second time shows that the lock was given back
        with pytest.raises(StoreLockedError, match=message):
            open_directory(fs)
    assert read(fs, "state/count/0_1/owner") == owner
    assert read(fs, "state/count/0_1/rocksdb/CURRENT") == b"precious"


@pytest.mark.parametrize(
    "owner",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"format": 1}',
        b'{"format": "1", "job": "count", "task": "0_1", "log_id": "log"}',
        b'{"format": 1, "job": "count", "task": "0_1", "log_id": null}',
        b'{"format": 1, "job": "count", "task": "0_1", "log_id": "log of old"}',
        None,
    ],
)
def test_a_directory_that_cannot_be_trusted_is_set_aside_for_an_empty_one(owner: bytes | None) -> None:
    fs = with_store()
    if owner is None:
        fs.remove("state/count/0_1/owner")
    else:
        write(fs, "state/count/0_1/owner", owner)
    directory = open_directory(fs)
    assert list(fs.list(directory.store_path)) == []
    assert read(fs, "state/count/0_1.damaged-1/rocksdb/CURRENT") == b"precious"
    assert read(fs, "state/count/0_1.damaged-1/reason")
    directory.close()
    open_directory(fs)
    assert list(fs.list("state/count")) == ["0_1", "0_1.damaged-1", "0_1.lock"]


def test_a_directory_that_was_never_finished_is_simply_started() -> None:
    fs = MemoryFileSystem()
    write(fs, "state/count/0_1/owner.new", b"{")
    open_directory(fs)
    assert list(fs.list("state/count")) == ["0_1", "0_1.lock"]


def test_only_the_directory_set_aside_last_is_kept_and_the_lock_stays_held() -> None:
    fs = with_store()
    directory = open_directory(fs)
    for number in (1, 2, 3):
        write(fs, f"{directory.store_path}/number", b"%d" % number)
        directory.set_aside(f"reason {number}")
    with pytest.raises(StoreLockedError, match="in use"):
        open_directory(fs)
    assert list(fs.list("state/count")) == ["0_1", "0_1.damaged-3", "0_1.lock"]
    assert read(fs, "state/count/0_1.damaged-3/reason") == b"reason 3"
    assert read(fs, "state/count/0_1.damaged-3/rocksdb/number") == b"3"
    assert list(fs.list("state/count/0_1")) == ["owner"]


def test_what_another_task_set_aside_is_not_ours() -> None:
    fs = MemoryFileSystem()
    neighbour = open_directory(fs, task="0_10")
    neighbour.set_aside("its own reason")
    open_directory(fs, task="0_1").set_aside("mine")
    assert list(fs.list("state/count")) == [
        "0_1",
        "0_1.damaged-1",
        "0_1.lock",
        "0_10",
        "0_10.damaged-1",
        "0_10.lock",
    ]


@pytest.mark.parametrize("change_number", range(1, 13))
def test_a_crash_while_setting_aside_leaves_the_old_directory_or_an_empty_one(change_number: int) -> None:
    class CrashError(Exception):
        pass

    seen: list[str] = []

    def observe(change: str) -> None:
        seen.append(change)
        if len(seen) == change_number:
            raise CrashError

    before = with_store()
    fs = MemoryFileSystem(observe)
    fs._files.update(before._files)
    crashed = False
    try:
        open_directory(fs).set_aside("a reason")
    except CrashError:
        crashed = True
    after = fs.crashed()
    directory = open_directory(after)
    if after.list(directory.store_path):
        assert crashed
        assert read(after, "state/count/0_1/rocksdb/CURRENT") == b"precious"
    else:
        assert read(after, "state/count/0_1.damaged-1/rocksdb/CURRENT") == b"precious"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "a\0b", "x" * 250, "a b", "ü", "a\n", "C:\\x"],
    ids=lambda name: repr(name[:9]),
)
def test_a_name_that_is_no_file_name_is_refused_before_anything_is_touched(name: str) -> None:
    fs = MemoryFileSystem()
    for names in ({"job": name}, {"task": name}):
        with pytest.raises(ConfigError, match="cannot be a directory"):
            open_directory(fs, **names)
    assert list(fs.list("state")) == []


@pytest.mark.parametrize("task", ["0_1.lock", "0_1.damaged-1"])
def test_a_task_cannot_be_named_as_a_lock_or_as_what_was_set_aside(task: str) -> None:
    with pytest.raises(ConfigError):
        open_directory(MemoryFileSystem(), task=task)


def test_a_job_may_have_dots_in_its_name() -> None:
    assert open_directory(MemoryFileSystem(), job="shop.orders-v2").path == "state/shop.orders-v2/0_1"
