"""A store that is built beside takes the place of the old one, whatever the moment of a crash."""

from streamkit.seams import MemoryFileSystem
from streamkit.state import StateDirectory


class PowerCut(BaseException):
    pass


class Power:
    def __init__(self) -> None:
        self.changes, self.cut_at = 0, 10**9

    def __call__(self, change: str) -> None:
        self.changes += 1
        if self.changes >= self.cut_at:
            raise PowerCut


def opened(fs: MemoryFileSystem) -> StateDirectory:
    return StateDirectory.open(fs, "state", job="job", task="0_0", log_id="log")


def put(fs: MemoryFileSystem, path: str, text: bytes) -> None:
    fs.make_dirs(path)
    file = fs.open(f"{path}/CURRENT", create=True)
    file.write_at(0, text)
    file.sync()
    fs.sync_dir(path)
    file.close()


def text_at(fs: MemoryFileSystem, path: str) -> bytes | None:
    try:
        return fs.open(f"{path}/CURRENT").read_at(0, 100)
    except FileNotFoundError:
        return None


def test_the_store_beside_takes_the_place_whole_at_any_crash() -> None:
    seen = set()
    for cut in range(1, 100):
        power = Power()
        fs = MemoryFileSystem(power)
        directory = opened(fs)
        put(fs, directory.store_path, b"old")
        put(fs, directory.begin_beside(), b"new")
        power.cut_at = power.changes + cut
        try:
            directory.take_beside()
            finished = True
        except PowerCut:
            finished = False
        after = fs.crashed()
        again = opened(after)
        seen.add(text_at(after, again.store_path))
        assert text_at(after, again.store_path) in (b"old", b"new")
        put(after, again.begin_beside(), b"newer")
        again.take_beside()
        assert text_at(after, again.store_path) == b"newer"
        assert after.list(again.path) == ["owner", "rocksdb"]
        if finished:
            break
    assert seen == {b"old", b"new"}


def test_what_a_killed_restore_left_is_removed_before_the_next_begins() -> None:
    fs = MemoryFileSystem()
    directory = opened(fs)
    put(fs, directory.begin_beside(), b"half")
    directory.close()
    again = opened(fs)
    assert text_at(fs, again.store_path) is None, "half a store was taken for a whole one"
    assert text_at(fs, again.begin_beside()) is None


def test_an_emptied_directory_has_nothing_and_is_ours() -> None:
    fs = MemoryFileSystem()
    directory = opened(fs)
    put(fs, directory.store_path, b"old")
    directory.set_aside("for a reason")
    put(fs, directory.store_path, b"old")
    directory.empty()
    assert fs.list(directory.path) == ["owner"]
    assert fs.list("state/job") == ["0_0", "0_0.lock"]
