"""Each command as a user types it, in an empty directory."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import IO

import orjson
import pytest
from command_line import COMMAND, ROOT, SECONDS, consumed, done, environment, produce, streamkit

from streamkit.broker import open_broker

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT = str(ROOT / "jobs" / "word_count.py")
HOT_AUCTIONS = str(ROOT / "jobs" / "hot_auctions.py")


def last_object(printed: str) -> dict[str, object]:
    made: dict[str, object] = orjson.loads(printed.splitlines()[-1])
    return made


def test_a_second_bounded_run_is_finished_and_continue_reads_what_came_since(tmp_path: Path) -> None:
    produce("lines", [b"to be or not to be"], cwd=tmp_path)
    first = last_object(done("run", WORD_COUNT, "--bounded", "--json", cwd=tmp_path))
    assert (first["records_in"], first["records_out"], first["late"], first["finished"]) == (1, 4, 0, True)
    produce("lines", [b"be it"], cwd=tmp_path)
    again = last_object(done("run", WORD_COUNT, "--bounded", "--json", cwd=tmp_path))
    assert (again["records_in"], again["finished"]) == (0, True), "a finished run reads nothing, whatever came"
    assert "finished" in done("run", WORD_COUNT, "--bounded", cwd=tmp_path)
    more = last_object(done("run", WORD_COUNT, "--bounded", "--continue", "--json", cwd=tmp_path))
    assert (more["records_in"], more["records_out"]) == (1, 2)
    counts = {row["key"]: row["value"] for row in consumed("word_counts", cwd=tmp_path)}
    assert counts == {"to": 2, "be": 3, "or": 1, "not": 1, "it": 1}


def test_run_makes_sinks_with_the_task_count_and_state_below_the_log(tmp_path: Path) -> None:
    produce("lines", [b"to be"], "--partitions", "3", cwd=tmp_path)
    done("run", WORD_COUNT, "--bounded", cwd=tmp_path)
    assert "8 partitions" in done("topics", "describe", "word_counts", cwd=tmp_path)
    assert "3 partitions" in done("topics", "describe", "lines", cwd=tmp_path)
    tasks = {path.name for path in (tmp_path / ".streamkit" / "state" / "word_count").iterdir() if path.is_dir()}
    assert tasks == {f"1_{shard}" for shard in range(8)}
    elsewhere = tmp_path / "elsewhere"
    done("run", WORD_COUNT, "--bounded", "--continue", "--state-dir", str(elsewhere), cwd=tmp_path)
    assert (elsewhere / "word_count" / "1_0").is_dir()


def test_a_windowed_result_has_the_plain_key_and_begins_with_its_window(tmp_path: Path) -> None:
    bid = {"auction": 7, "bidder": 1, "price": 5, "channel": "web", "url": "u", "ts": 1_000}
    produce("bids", [orjson.dumps(bid), orjson.dumps({**bid, "price": 9, "ts": 2_000})], cwd=tmp_path)
    done("run", HOT_AUCTIONS, "--bounded", cwd=tmp_path)
    (row,) = consumed("hot_auctions", cwd=tmp_path)
    assert (row["key"], row["timestamp_ms"]) == ("7", 9_999)
    assert orjson.dumps(row["value"]) == b'{"window_start":0,"window_end":10000,"bids":2,"best":9}'


def test_produce_takes_lines_as_they_stand(tmp_path: Path) -> None:
    given = b'plain\n{"a": 1}\n\nlast without an end, \xff'
    printed = done("produce", "lines", cwd=tmp_path, given=given)
    assert printed == "4 records appended to lines (1 partition)\n"
    values = [row["value"] for row in consumed("lines", cwd=tmp_path)]
    assert values == ["plain", {"a": 1}, "", "last without an end, \\xff"]
    assert all(row["key"] is None for row in consumed("lines", cwd=tmp_path))
    assert streamkit("consume", "lines", "--until-end", cwd=tmp_path).stdout == given + b"\n"


def test_produce_places_keys_as_kafka_does_and_appends_a_file_whole(tmp_path: Path) -> None:
    rows = [{"id": "foobar", "n": 1}, {"id": 21, "n": 2}, {"id": "foobar", "n": 3}]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    command = ("produce", "rows", "rows.jsonl", "--key-field", "id", "--partitions", "4")
    assert done(*command, cwd=tmp_path) == "3 records appended to rows (4 partitions)\n"
    found = consumed("rows", cwd=tmp_path)
    assert sorted((row["key"], row["value"]["n"]) for row in found) == [("21", 2), ("foobar", 1), ("foobar", 3)]  # type: ignore[index]  # values are objects here
    # The hashes are of Kafka's own tests of its murmur2.
    expected = {key: (hashed & 0x7FFFFFFF) % 4 for key, hashed in (("foobar", -790332482), ("21", -973932308))}
    assert {row["key"]: row["partition"] for row in found} == expected

    (tmp_path / "bad.jsonl").write_bytes(b'{"id": "a"}\n{"n": 1}\n')
    ended = streamkit("produce", "rows", "bad.jsonl", "--key-field", "id", cwd=tmp_path)
    assert ended.returncode == 1
    assert "line 2 has no field 'id'" in ended.stderr.decode()
    assert len(consumed("rows", cwd=tmp_path)) == 3, "a file is appended whole or not at all"


def test_produce_refuses_another_partition_count_and_appends_with_the_same(tmp_path: Path) -> None:
    produce("lines", [b"a"], "--partitions", "2", cwd=tmp_path)
    produce("lines", [b"b"], "--partitions", "2", cwd=tmp_path)
    produce("lines", [b"c"], cwd=tmp_path)
    ended = streamkit("produce", "lines", "--partitions", "3", cwd=tmp_path, given=b"d\n")
    assert ended.returncode == 2
    assert "lines has 2 partitions, not 3" in ended.stderr.decode()
    assert len(consumed("lines", cwd=tmp_path)) == 3


def test_consume_begins_where_it_is_told(tmp_path: Path) -> None:
    produce("lines", [b"one", b"two"], cwd=tmp_path)
    produce("lines", [b"three"], cwd=tmp_path)
    rows = consumed("lines", cwd=tmp_path)
    assert [row["offset"] for row in rows] == [0, 1, 2]
    assert [row["value"] for row in consumed("lines", "--from", "1", cwd=tmp_path)] == ["two", "three"]
    assert consumed("lines", "--from", "latest", cwd=tmp_path) == []
    stamp = int(str(rows[2]["timestamp_ms"]))
    seconds, ms = divmod(stamp, 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
    assert [row["value"] for row in consumed("lines", "--from", moment, cwd=tmp_path)][-1] == "three"
    assert consumed("lines", "--from", "2999-01-01", cwd=tmp_path) == []
    assert streamkit("consume", "lines", "--from", "yesterday", cwd=tmp_path).returncode == 2
    assert streamkit("consume", "lines", "--from", "99", "--until-end", cwd=tmp_path).returncode == 1


def test_consume_shows_open_transactions_only_when_asked(tmp_path: Path) -> None:
    produce("lines", [b"kept"], cwd=tmp_path)
    (tmp_path / "bad.jsonl").write_bytes(b'{"k": "a"}\nno json\n')
    assert streamkit("produce", "lines", "bad.jsonl", "--key-field", "k", cwd=tmp_path).returncode == 1
    assert [row["value"] for row in consumed("lines", cwd=tmp_path)] == ["kept"]
    (tmp_path / "long.jsonl").write_bytes(b'{"k": "a"}\n' * 30_000 + b"no json\n")
    assert streamkit("produce", "lines", "long.jsonl", "--key-field", "k", cwd=tmp_path).returncode == 1
    assert [row["value"] for row in consumed("lines", cwd=tmp_path)] == ["kept"]
    assert len(consumed("lines", "--read-uncommitted", cwd=tmp_path)) > 1


def test_topics_are_created_listed_described_and_deleted(tmp_path: Path) -> None:
    done("topics", "create", "orders", "--partitions", "2", "--config", "segment.bytes=1000000", cwd=tmp_path)
    done("topics", "create", "orders", "--partitions", "2", "--config", "segment.bytes=1000000", cwd=tmp_path)
    assert done("topics", "list", cwd=tmp_path) == "orders\n"
    assert "segment.bytes=1000000" in done("topics", "describe", "orders", cwd=tmp_path)
    unknown = streamkit("topics", "create", "x", "--config", "segment.byte=1", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "did you mean segment.bytes?" in unknown.stderr.decode()
    done("topics", "delete", "orders", cwd=tmp_path)
    assert done("topics", "list", cwd=tmp_path) == ""
    assert streamkit("topics", "delete", "orders", cwd=tmp_path).returncode == 2


def test_describe_shows_map_shuffle_reduce(tmp_path: Path) -> None:
    shown = done("describe", WORD_COUNT, cwd=tmp_path)
    for part in ("words", "by_word", "counts", "word_count-by_word-repartition", "word_count-counts-changelog"):
        assert part in shown
    assert orjson.loads(done("describe", WORD_COUNT, "--json", cwd=tmp_path))["job"] == "word_count"
    assert not (tmp_path / ".streamkit").exists(), "describing touches no log"


def test_log_dump_shows_the_batches_of_a_segment_beside_a_running_process(tmp_path: Path) -> None:
    produce("lines", [b"to be"], cwd=tmp_path)
    done("run", WORD_COUNT, "--bounded", cwd=tmp_path)
    broker = open_broker(f"log://{tmp_path / '.streamkit'}")
    segment = str(next((tmp_path / ".streamkit").glob("word_counts-*/*.log")))
    segments = [str(path) for path in (tmp_path / ".streamkit").glob("word_counts-*/*.log") if path.stat().st_size]
    shown = "".join(done("log", "dump", path, "--records", cwd=tmp_path) for path in segments)
    broker.close()
    assert "transactional" in shown
    assert "commit" in shown
    assert "key to value 1" in shown
    assert segment.endswith("00000000000000000000.log")

    damaged = tmp_path / "00000000000000000000.log"
    data = bytearray(Path(segments[0]).read_bytes())
    data[70] ^= 1
    damaged.write_bytes(data)
    ended = streamkit("log", "dump", str(damaged), cwd=tmp_path)
    assert ended.returncode == 1
    assert "byte 0" in ended.stderr.decode()


def test_a_topics_compression_shows_in_the_dump_of_its_log(tmp_path: Path) -> None:
    done("topics", "create", "lines", "--config", "compression.type=zstd", cwd=tmp_path)
    produce("lines", [b"to be or not to be"] * 100, cwd=tmp_path)
    assert "compression.type=zstd" in done("topics", "describe", "lines", cwd=tmp_path)
    segment = next((tmp_path / ".streamkit").glob("lines-0/*.log"))
    shown = done("log", "dump", str(segment), "--records", cwd=tmp_path)
    assert "compression zstd" in shown
    assert shown.count("value to be or not to be") == 100
    assert len(consumed("lines", cwd=tmp_path)) == 100


def test_the_environment_names_the_broker(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "produce", "lines"],
        cwd=tmp_path,
        env={**environment(), "STREAMKIT_BROKER": "log://there"},
        input=b"x\n",
        capture_output=True,
        check=True,
    )
    assert ended.stdout
    assert (tmp_path / "there" / "log_id").exists()
    assert not (tmp_path / ".streamkit").exists()


def test_the_current_directory_comes_first_when_a_job_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "shared_words.py").write_text("def split(line: str) -> list[str]:\n    return line.split()\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "mine.py").write_text(
        "from shared_words import split\nfrom streamkit import Job\n\njob = Job('mine')\n"
        "job.stream('lines', value=str).flat_map(split).to('words')\n"
    )
    produce("lines", [b"to be"], cwd=tmp_path)
    done("run", "pipelines.mine", "--bounded", cwd=tmp_path)
    assert [row["value"] for row in consumed("words", cwd=tmp_path)] == ["to", "be"]
    assert "mine" in done("describe", "pipelines/mine.py", cwd=tmp_path)


def read_until(worker: "subprocess.Popen[bytes]", wanted: bytes) -> bytes:
    """Read what a worker prints until it prints `wanted`."""
    assert worker.stdout is not None
    printed = b""
    while wanted not in printed:
        line = worker.stdout.readline()
        assert line, f"the worker ended: {printed.decode()}"
        printed += line
    return printed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0)])
def test_a_worker_that_is_asked_to_stop_commits_and_exits_0(tmp_path: Path, number: int, code: int) -> None:
    produce("lines", [b"to be or not to be"] * 1000, cwd=tmp_path)
    worker = subprocess.Popen([*COMMAND, "run", WORD_COUNT, "--json"], cwd=tmp_path, stdout=subprocess.PIPE)
    read_until(worker, b'"records_in":1000')
    worker.send_signal(number)
    printed, _ = worker.communicate(timeout=SECONDS)
    assert worker.returncode == code
    summary = last_object(printed.decode())
    assert (summary["records_in"], summary["finished"]) == (1000, False)
    # What it had read may still have been behind the shuffle.
    rest = last_object(done("run", WORD_COUNT, "--bounded", "--json", cwd=tmp_path))
    assert rest["records_in"] == 0, "a second run goes on from the committed offsets"
    counts = {row["key"]: row["value"] for row in consumed("word_counts", cwd=tmp_path)}
    assert counts["to"] == 2000


def test_a_bounded_run_cut_short_exits_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    line_count = 1_000_000  # some seconds of work: progress is told every second
    produce("lines", [b"to be or not to be that is the question"] * line_count, "--partitions", "2", cwd=tmp_path)
    worker = subprocess.Popen(
        [*COMMAND, "run", WORD_COUNT, "--bounded", "--json"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    read_until(worker, b'"lag"')
    worker.send_signal(signal.SIGINT)
    printed, _ = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 130
    first = last_object(printed.decode())
    assert not first["finished"]
    rest = last_object(done("run", WORD_COUNT, "--bounded", "--json", cwd=tmp_path))
    assert int(str(first["records_in"])) + int(str(rest["records_in"])) == line_count
    counts = {row["key"]: row["value"] for row in consumed("word_counts", cwd=tmp_path)}
    assert (counts["to"], counts["question"]) == (2 * line_count, line_count)


def test_consume_that_waits_for_more_ends_with_ctrl_c(tmp_path: Path) -> None:
    produce("lines", [b"one"], cwd=tmp_path)
    consumer = subprocess.Popen([*COMMAND, "consume", "lines"], cwd=tmp_path, stdout=subprocess.PIPE)
    read_until(consumer, b"one")
    consumer.send_signal(signal.SIGINT)
    consumer.communicate(timeout=SECONDS)
    assert consumer.returncode == 0


def wait_until_read(pipe: IO[bytes]) -> None:
    """Wait until all that was written to a pipe has been read at its other end."""
    deadline, nothing = time.monotonic() + SECONDS, threading.Event()
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))) != (0,):
        assert time.monotonic() < deadline, "nobody reads it"
        nothing.wait(0.01)


def test_ctrl_c_ends_a_produce_that_waits_for_its_input_and_keeps_what_came(tmp_path: Path) -> None:
    producer = subprocess.Popen(
        [*COMMAND, "produce", "lines"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert producer.stdin is not None
    for part in (b"kept\n", b"half of a line"):
        producer.stdin.write(part)
        producer.stdin.flush()
        wait_until_read(producer.stdin)
    # The next part of its input is asked for once the last one is durable and counted.
    producer.send_signal(signal.SIGINT)
    # The input stays open: it is the interrupt that ends it.
    assert producer.wait(timeout=SECONDS) == 0
    printed, _ = producer.communicate()
    assert printed == b"1 record appended to lines (1 partition)\n"
    assert [row["value"] for row in consumed("lines", cwd=tmp_path)] == ["kept"]


@pytest.mark.parametrize("redirected", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed_are_done_without(tmp_path: Path, redirected: str) -> None:
    produce("lines", [b"one"], cwd=tmp_path)
    command = " ".join([*COMMAND, "consume", "lines", "--until-end", redirected])
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr == b""
    assert [row["value"] for row in consumed("lines", cwd=tmp_path)] == ["one"]


def test_output_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    produce("lines", [b"one"], cwd=tmp_path)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, "consume", "lines", "--until-end"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert ended.returncode == 1
    assert b"No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_bad_line_of_standard_input_says_how_many_stand(tmp_path: Path) -> None:
    given = b'{"k": "a"}\n' * 30_000 + b"no json\n"
    ended = streamkit("produce", "lines", "--key-field", "k", cwd=tmp_path, given=given)
    assert ended.returncode == 1
    found = re.search(r"line 30001 is not JSON.*go on after line (\d+)", ended.stderr.decode(), re.DOTALL)
    assert found is not None, ended.stderr
    assert len(consumed("lines", cwd=tmp_path)) == int(found[1])


def on_a_terminal(command: list[str], cwd: Path, wanted: re.Pattern[str]) -> tuple[str, int]:
    """Run a command on a pseudo-terminal; interrupt it once `wanted` shows; return what it showed and its exit code."""
    controller, terminal = pty.openpty()
    variables = environment() | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=terminal)
    os.close(terminal)
    shown, interrupted = "", False
    decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end inside of a character
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not select.select([controller], [], [], 1.0)[0]:
            continue
        try:
            shown += decoder.decode(os.read(controller, 65536))
        except OSError:
            break
        if wanted.search(shown) and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    os.close(controller)
    return shown, process.wait(timeout=SECONDS)


def test_a_terminal_shows_live_progress_and_a_last_summary(tmp_path: Path) -> None:
    produce("lines", [b"to be or not to be"] * 5000, cwd=tmp_path)
    progress = re.compile(
        r"word_count: 5,000 records in, [\d,]+ records/s, lag 0, watermark \d{4}-\S+Z, late 0, state \S+ \w+"
    )
    shown, code = on_a_terminal([*COMMAND, "run", WORD_COUNT], tmp_path, progress)
    assert progress.search(shown)
    assert re.search(r"word_count: stopped: 5,000 records in, [\d,]+ out, 0 late, [\d.]+ s", shown)
    assert code == 0


def test_several_workers_on_an_embedded_log_are_refused_with_the_way_out(tmp_path: Path) -> None:
    produce("lines", [b"to be"], cwd=tmp_path)
    ended = streamkit("run", WORD_COUNT, "--bounded", "--workers", "2", cwd=tmp_path)
    assert ended.returncode == 2
    assert "one process uses an embedded log at a time" in ended.stderr.decode()
    assert "--broker kafka://" in ended.stderr.decode()


def test_shards_shows_how_far_each_task_is_and_what_workers_would_take(tmp_path: Path) -> None:
    produce("lines", [b"to be or not to be", b"that"], "--partitions", "2", cwd=tmp_path)
    before = last_object(done("shards", WORD_COUNT, "--json", cwd=tmp_path))["shards"]
    assert isinstance(before, list)
    assert sum(row["lag"] for row in before) == 2
    done("run", WORD_COUNT, "--bounded", cwd=tmp_path)
    shown = last_object(done("shards", WORD_COUNT, "--json", "--preview-workers", "3", cwd=tmp_path))
    rows, moves = shown["shards"], shown["moves"]
    assert isinstance(rows, list)
    assert isinstance(moves, dict)
    assert {row["task"] for row in rows} == {row["task"] for row in before} == moves.keys()
    assert all(row["owner"] is None and row["transaction"] > 0 for row in rows)
    assert [row["lag"] for row in rows if row["task"].startswith("0_")] == [0, 0]
    assert sum(row["state_bytes"] or 0 for row in rows) > 0
    assert len({move["to"] for move in moves.values()}) == 3
    assert "with 1 workers" in done("shards", WORD_COUNT, "--preview-workers", "1", cwd=tmp_path)
