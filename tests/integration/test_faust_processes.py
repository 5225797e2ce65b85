"""Faust's own command line on streamkit's log: real processes, one after the other on one directory."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, SECONDS, consumed, done, environment
from ports import free_ports

from streamkit.broker.partitioner import partition_of

pytestmark = [pytest.mark.slow, pytest.mark.process]

LOUD = """
import faust

app = faust.App("loud", broker="streamkit+log://.streamkit", topic_partitions=1, broker_commit_interval=INTERVAL)
words = app.topic("words", value_serializer="raw")
shouts = app.topic("shouts", value_serializer="raw")
ticks = app.topic("ticks", value_serializer="raw")


@app.agent(words)
async def shout(stream):
    async for word in stream:
        await (await shouts.send(value=word.upper()))
        print("heard", word, flush=True)


@app.timer(0.1)
async def tick():
    await (await ticks.send(value=b"tick"))
    print("ticked", flush=True)


@app.page("/hello/")
async def hello(web, request):
    return web.json({"hello": "streamkit"})
"""


def faust(module: str, *arguments: str, cwd: Path) -> str:
    """Run a command of Faust's to its end; return what it printed."""
    command = [sys.executable, "-m", "faust", "-A", module, *arguments]
    ended = subprocess.run(command, cwd=cwd, env=faust_environment(), capture_output=True, check=False, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


def faust_environment() -> dict[str, str]:
    return {**environment(), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@contextlib.contextmanager
def worker(module: str, *arguments: str, cwd: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker; what it prints goes to its standard output."""
    command = [sys.executable, "-u", "-m", "faust", "-A", module, "worker", "-l", "info", *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, env=faust_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def printed_until(process: "subprocess.Popen[bytes]", text: bytes) -> bytes:
    """Return what a worker prints, up to a line with `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return b"".join(lines)
    raise AssertionError(b"".join(lines).decode())


def values(topic: str, cwd: Path) -> list[object]:
    return [row["value"] for row in consumed(topic, cwd=cwd)]


def test_agents_timers_pages_and_the_command_line_run_on_the_log(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD.replace("INTERVAL", "0.1"))
    (port,) = free_ports(1)
    assert "shout" in faust("loud", "agents", cwd=tmp_path)
    answer = orjson.loads(faust("loud", "send", "words", "hello", cwd=tmp_path))
    assert (answer["topic"], answer["partition"], answer["offset"]) == ("words", 0, 0)
    with worker("loud", "--web-port", str(port), "--web-bind", "127.0.0.1", cwd=tmp_path) as process:
        printed = printed_until(process, b"heard")
        if b"ticked" not in printed:
            printed_until(process, b"ticked")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello/", timeout=SECONDS) as page:
            assert orjson.loads(page.read()) == {"hello": "streamkit"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert values("shouts", tmp_path) == ["HELLO"]
    assert "tick" in values("ticks", tmp_path)


def test_what_was_not_committed_is_read_again_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD.replace("INTERVAL", "1000"))
    faust("loud", "send", "words", "hello", cwd=tmp_path)
    with worker("loud", "--without-web", cwd=tmp_path) as process:
        printed_until(process, b"heard")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
    with worker("loud", "--without-web", cwd=tmp_path) as process:
        printed_until(process, b"heard")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert values("shouts", tmp_path) == ["HELLO", "HELLO"]


def test_agents_and_a_job_share_topics_and_one_process(tmp_path: Path) -> None:
    """Both ways: an agent writes `lines`, the job reads them and writes `word_counts`, an agent reads those."""
    for _ in range(2):
        faust("jobs.popular_words", "send", "typed", "to be, or not to be, or else.", cwd=tmp_path)
    with worker("jobs.popular_words", "--without-web", cwd=tmp_path) as process:
        # The shards are apart in time, and each has a popular word: when all are announced, every word was counted.
        assert {partition_of(word, 2) for word in (b"to", b"be", b"or")} == {0, 1}
        for _ in ("to", "be", "or"):
            printed_until(process, b"popular: ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert values("lines", tmp_path) == ["to be or not to be or else"] * 2
    assert {row["key"]: row["value"] for row in consumed("word_counts", cwd=tmp_path)} == {
        "to": 4, "be": 4, "or": 4, "not": 2, "else": 2,
    }  # fmt: skip
    assert {row["key"]: row["value"] for row in consumed("popular_words", cwd=tmp_path)} == {
        "to": 4, "be": 4, "or": 4,
    }  # fmt: skip
    assert "word_counts" in done("topics", "list", cwd=tmp_path)


def test_a_worker_whose_job_fails_ends_with_the_error(tmp_path: Path) -> None:
    (tmp_path / "failing_app.py").write_text(
        "import faust\n"
        "from streamkit import Job\n"
        "from streamkit.hosts.faust import mount\n"
        'app = faust.App("failing", broker="streamkit+log://.streamkit", topic_disable_leader=True)\n'
        'job = Job("doubling")\n'
        'job.stream("numbers", value=int).map(lambda number: 2 * number).to("doubles")\n'
        "mount(app, job)\n"
    )
    done("produce", "numbers", cwd=tmp_path, given=b"many\n")
    with worker("failing_app", "--without-web", cwd=tmp_path) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        assert process.wait(SECONDS) != 0
    assert "DeserializationError" in printed
    assert "many" in printed
