"""RocksDB's own ways: damage, locks, stalls, and the death of the process."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamkit.errors import StateError, StoreClosedError, StoreDamagedError, StoreLockedError
from streamkit.state import POSITION_KEY, Changes, RocksDBResources, RocksDBStore
from streamkit.state.entries import FlatEntries

KIB, MIB = 1024, 1024 * 1024
RESOURCES = RocksDBResources(memory_bytes=4 * MIB)
EVERYTHING = (b"", b"\xff" * 16)
KEYS = [b"%05d" % number for number in range(600)]


def open_store(path: Path) -> RocksDBStore:
    return RocksDBStore(str(path), resources=RESOURCES)


def generation(number: int) -> dict[bytes, bytes]:
    return {key: b"%d of generation %d" % (place, number) for place, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with three generations of the same keys in three tables."""
    path = tmp_path_factory.mktemp("sound") / "db"
    store = open_store(path)
    for number in (1, 2, 3):
        store.write(Changes(values=generation(number) | {POSITION_KEY: b"%d" % number}))
        store.flush()
    store.close()
    return path


# --- damage (fault case F24)


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_at(part: float) -> Callable[[Path], None]:
    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        if data:
            data[int(part * (len(data) - 1))] ^= 0x55
        file.write_bytes(data)

    return flip


DAMAGES = {"removed": remove, "emptied": empty, "halved": halve} | {
    f"flipped at {part}": flip_at(part) for part in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
}


def outcome(path: Path) -> str:
    """Open the store and read everything, by key and by scan.

    Returns `damaged` if that was said, else the generation whose contents it has, whole. The cache is a new one:
    blocks of a sound copy that was read before would be taken from the old one.
    """
    try:
        store = RocksDBStore(str(path), resources=RocksDBResources(memory_bytes=MIB))
    except StoreDamagedError:
        return "damaged"
    try:
        pairs = dict(store.scan(*EVERYTHING))
        values = store.get_many([*KEYS, POSITION_KEY])
        assert values == [pairs.get(key) for key in [*KEYS, POSITION_KEY]]
        position = pairs.pop(POSITION_KEY)
        assert pairs == generation(int(position)), "neither said to be damaged nor a whole generation"
        return position.decode()
    except StoreDamagedError:
        return "damaged"
    finally:
        store.close()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [r"\d+\.sst", r"MANIFEST-.*", r"CURRENT"])
def test_damage_of_what_the_store_needs_is_said(sound: Path, tmp_path: Path, kind: str, damage: str) -> None:
    """Each file of the kind in turn; two damages may leave whole contents, and then those must be read.

    A MANIFEST cut between two edits is an older, whole state. At 0.8 a table has its filter, which only saves reads.
    """
    also_sound = {(r"MANIFEST-.*", "halved"): {"1", "2"}, (r"\d+\.sst", "flipped at 0.8"): {"3"}}
    for name in [file.name for file in sound.iterdir() if re.fullmatch(kind, file.name)]:
        path = tmp_path / name
        shutil.copytree(sound, path)
        DAMAGES[damage](path / name)
        assert outcome(path) in {"damaged"} | also_sound.get((kind, damage), set())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [r"OPTIONS-.*", r"rocksdict-config\.json", r"IDENTITY", r"LOG", r"\d+\.log"])
def test_damage_of_what_the_store_does_not_need_changes_nothing(
    sound: Path, tmp_path: Path, kind: str, damage: str
) -> None:
    names = [file.name for file in sound.iterdir() if re.fullmatch(kind, file.name)]
    assert names
    for name in names:
        path = tmp_path / name
        shutil.copytree(sound, path)
        DAMAGES[damage](path / name)
        assert outcome(path) == "3"


def test_every_file_that_rocksdb_writes_is_of_a_kind_that_is_tested(sound: Path) -> None:
    tested = r"\d+\.sst|MANIFEST-.*|CURRENT|OPTIONS-.*|rocksdict-config\.json|IDENTITY|LOG(\.old.*)?|\d+\.log|LOCK"
    assert [file.name for file in sound.iterdir() if not re.fullmatch(tested, file.name)] == []


def test_a_config_that_asks_for_pickle_is_not_believed(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    config = json.loads((path / "rocksdict-config.json").read_text())
    assert config["raw_mode"] is True
    (path / "rocksdict-config.json").write_text(json.dumps(config | {"raw_mode": False}))
    assert outcome(path) == "3"
    assert json.loads((path / "rocksdict-config.json").read_text())["raw_mode"] is True


def test_tables_without_current_and_log_are_damage_not_an_empty_store(sound: Path, tmp_path: Path) -> None:
    """RocksDB itself would start a new database over them."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    for file in path.iterdir():
        if file.name == "CURRENT" or file.suffix == ".log":
            file.unlink()
    assert outcome(path) == "damaged"


def test_a_file_where_the_directory_should_be_is_damage(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"")
    with pytest.raises(StoreDamagedError):
        open_store(tmp_path / "db")


def test_a_database_with_other_column_families_is_not_ours(tmp_path: Path) -> None:
    script = (
        "import sys, rocksdict\n"
        "options = rocksdict.Options(raw_mode=True)\n"
        "options.create_if_missing(True)\n"
        "options.create_missing_column_families(True)\n"
        "rocksdict.Rdict(sys.argv[1], options, {'other': rocksdict.Options(raw_mode=True)}).close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], check=True)
    with pytest.raises(StoreDamagedError):
        open_store(tmp_path / "db")


def test_a_scan_that_meets_damage_gives_what_came_before_and_then_raises(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    newest = max(path.glob("*.sst"))
    flip_at(0.4)(newest)
    store = RocksDBStore(str(path), resources=RocksDBResources(memory_bytes=MIB))
    seen = 0
    with pytest.raises(StoreDamagedError, match="is damaged") as raised:
        for seen, _ in enumerate(store.scan(*EVERYTHING), start=1):  # noqa: B007  # it counts what came before
            pass
    assert seen < len(KEYS)
    # The directory is set aside and made anew while the error, with its traceback, is still in hand.
    store.close()
    path.rename(tmp_path / "db.damaged")
    open_store(path).close()
    assert raised.value.detail


def test_a_store_that_was_damaged_at_open_can_be_opened_once_it_is_mended(sound: Path, tmp_path: Path) -> None:
    """So nothing of it stays locked, and its directory can be set aside."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    current = (path / "CURRENT").read_bytes()
    (path / "CURRENT").write_bytes(b"?\n")
    assert outcome(path) == "damaged"
    (path / "CURRENT").write_bytes(current)
    assert outcome(path) == "3"


def test_an_error_of_the_disk_is_not_taken_for_damage(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be read or written") as raised:
        open_store(tmp_path / ("x" * 300))
    assert not isinstance(raised.value, StoreDamagedError)


# --- locks and handles (fault case F25)


def test_a_store_in_use_is_refused_here_and_in_another_process(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    with pytest.raises(StoreLockedError, match="is in use"):
        open_store(tmp_path / "db")
    script = (
        "import sys\n"
        "from streamkit.errors import StoreLockedError\n"
        "from streamkit.state import RocksDBResources, RocksDBStore\n"
        "try:\n"
        "    RocksDBStore(sys.argv[1], resources=RocksDBResources())\n"
        "except StoreLockedError as error:\n"
        "    print(error.primary)\n"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], check=True, capture_output=True)
    assert b"is in use" in told.stdout
    store.close()


def test_a_closed_store_opens_again_at_once_whatever_scans_were_left(tmp_path: Path) -> None:
    left = []
    for number in range(5):
        store = open_store(tmp_path / "db")
        store.write(Changes(values={b"%d" % number: b"x"} | generation(1)))
        scan = store.scan(*EVERYTHING)
        next(scan)
        left.append(scan)
        store.close()
    store = open_store(tmp_path / "db")
    assert len(list(store.scan(*EVERYTHING))) == 5 + len(KEYS)
    store.close()


def test_a_store_that_is_closed_by_another_thread_says_so(tmp_path: Path) -> None:
    """The database is closed beneath the store, as if between its check and its use."""
    store = open_store(tmp_path / "db")
    store._opened().close()
    with pytest.raises(StoreClosedError):
        store.flush()


def test_reads_and_writes_go_on_while_another_thread_flushes(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    stop, failures = threading.Event(), []

    def flush() -> None:
        while not stop.is_set():
            try:
                store.flush()
            except StateError as error:
                failures.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    for number in range(30):
        store.write(Changes(values=generation(number)))
        assert store.get_many(KEYS) == list(generation(number).values())
    stop.set()
    thread.join()
    store.close()
    assert failures == []


# --- writes


def test_a_write_that_would_stall_flushes_and_is_not_lost(tmp_path: Path) -> None:
    """With buffers of 8 KiB, writes outrun RocksDB's flushes; each stall uses up the batch."""
    store = RocksDBStore(str(tmp_path / "db"), resources=RocksDBResources(memory_bytes=64 * KIB))
    model: dict[bytes, bytes] = {}
    for number in range(150):
        values = {b"%06d" % (number * 37 % 500 + place): b"%d " % number * 20 for place in range(100)}
        store.write(Changes(values=values))
        model.update(values)
    assert dict(store.scan(*EVERYTHING)) == model
    store.close()


def test_many_stores_share_one_budget(tmp_path: Path) -> None:
    resources = RocksDBResources(memory_bytes=2 * MIB)
    stores = [RocksDBStore(str(tmp_path / str(number)), resources=resources) for number in range(8)]
    for store in stores:
        store.write(Changes(values=generation(1)))
    for store in stores:
        assert dict(store.scan(*EVERYTHING)) == generation(1)
        store.close()


def test_what_is_closed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    store.write(Changes(values=generation(1)))
    store.close()
    store = open_store(tmp_path / "db")
    assert dict(store.scan(*EVERYTHING)) == generation(1)
    store.close()


# --- the death of the process (rule D6)

WRITER = """
import os, sys
from streamkit.state import Changes, POSITION_KEY, RocksDBResources, RocksDBStore

store = RocksDBStore(sys.argv[1], resources=RocksDBResources(memory_bytes=256 * 1024))
for number in range(1, 1_000_000):
    values = {b"%04d" % ((number * 7 + place) % 300): b"%d" % number for place in range(50)}
    store.write(Changes(values=values | {POSITION_KEY: b"%d" % number}, delete_ranges=[(b"0100", b"0110")]))
    flushed = number % 40 == 0
    if flushed:
        store.flush()
    os.write(1, b"%d %d " % (number, flushed) + bytes([10]))
"""


def state_after(count: int) -> dict[bytes, bytes]:
    """The same writes on a dict."""
    model: dict[bytes, bytes] = {}
    for number in range(1, count + 1):
        model = {key: value for key, value in model.items() if not b"0100" <= key < b"0110"}
        model.update({b"%04d" % ((number * 7 + place) % 300): b"%d" % number for place in range(50)})
    return model


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("kill_after", [1, 45, 130, 400])
def test_a_killed_process_leaves_an_exact_state_not_older_than_its_last_flush(tmp_path: Path, kill_after: int) -> None:
    written = flushed = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "db")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            written, was_flush = map(int, line.split())
            flushed = written if was_flush else flushed
            if written == kill_after:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    store = open_store(tmp_path / "db")
    pairs = dict(store.scan(*EVERYTHING))
    store.close()
    position = int(pairs.pop(POSITION_KEY, b"0"))
    assert flushed <= position <= written + 1
    assert pairs == state_after(position)


# --- tables


@pytest.mark.parametrize("length_max", [3, 8, 9, 16, 32, 33, 80])
@pytest.mark.parametrize("equal", [True, False])
def test_a_table_has_its_keys_in_the_order_of_bytes(tmp_path: Path, length_max: int, *, equal: bool) -> None:
    """RocksDB refuses a table whose keys are not in order; zeros at the end of a key are a part of it."""
    rng = random.Random(length_max)
    values: dict[bytes, bytes | None] = {}
    while len(values) < 3_000:
        key = rng.randbytes(length_max if equal else rng.randrange(length_max + 1))
        for one in (key, key.replace(key[-1:], b"\0")) if equal else (key, key[:-1] + b"\0", key[:-1]):
            values[one] = None if rng.random() < 0.1 else b"of %s" % one
    store = open_store(tmp_path / "db")
    store.ingest([FlatEntries.of(list(values), list(values.values()))])
    assert list(store.scan(*EVERYTHING)) == sorted((key, value) for key, value in values.items() if value is not None)
    store.close()
