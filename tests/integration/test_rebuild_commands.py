"""Restore, verify and replay as they are typed: what they print, and what they exit with."""

import contextlib
from pathlib import Path

import orjson
import pytest
from changelogs import flipped, rewrite
from command_line import consumed, done, produce, streamkit

from streamkit.broker import open_broker
from streamkit.records import TopicPartition

pytestmark = [pytest.mark.process, pytest.mark.slow]

JOB = """
from streamkit import Job

job = Job("words")
lines = job.stream("lines", value=str)
lines.flat_map(str.split, name="split").group_by(str, name="by_word", shards=1).count(name="counts").to("counted")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    produce("lines", [b"to be or not to be"], cwd=tmp_path)
    done("run", "job.py", "--bounded", cwd=tmp_path)
    return tmp_path


def counts(cwd: Path) -> dict[object, object]:
    return {record["key"]: record["value"] for record in consumed("counted", cwd=cwd)}


def test_before_the_first_run_there_is_nothing_to_rebuild(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    produce("lines", [b"to be"], cwd=tmp_path)
    for command in (["restore"], ["verify"], ["replay", "--yes"]):
        ended = streamkit(*command, "job.py", cwd=tmp_path)
        assert ended.returncode == 2
        assert b"streamkit run JOB" in ended.stderr


def test_the_last_line_of_json_has_the_digests(place: Path) -> None:
    told = orjson.loads(done("restore", "job.py", "--json", cwd=place).splitlines()[-1])
    (store,) = told["stores"]
    assert (store["task"], store["store"], store["keys"], store["equal"]) == ("1_0", "counts", 4, True)
    assert store["digest"] == store["said"]
    for command in (["verify"], ["replay", "--yes"]):
        told = orjson.loads(done(*command, "job.py", "--json", cwd=place).splitlines()[-1])
        assert told["finished"]
        assert {one["equal"] for one in told["comparisons"]} == {True}
        assert told["comparisons"][-1]["digest"] == store["digest"]


def test_a_replay_that_nobody_said_yes_to_is_refused_and_names_what_it_would_empty(place: Path) -> None:
    ended = streamkit("replay", "job.py", cwd=place)
    assert ended.returncode == 2
    for topic in (b"counted", b"words-by_word-repartition", b"words-counts-changelog"):
        assert topic in ended.stderr
    assert counts(place) == {"to": 2, "be": 2, "or": 1, "not": 1}
    done("run", "job.py", "--bounded", "--continue", cwd=place)


def test_a_begin_that_is_no_time_is_refused(place: Path) -> None:
    for text in ("latest", "7", "1969-12-31"):
        assert streamkit("replay", "job.py", "--yes", "--from", text, cwd=place).returncode == 2
    assert counts(place)["to"] == 2


def test_a_difference_is_exit_code_1_with_store_and_keys_and_a_replay_mends_it(place: Path) -> None:
    broker = open_broker(f"log://{place / '.streamkit'}")
    rewrite(broker, TopicPartition("words-counts-changelog", 0), flipped)
    broker.close()
    for command in ("restore", "verify"):
        ended = streamkit(command, "job.py", cwd=place)
        assert ended.returncode == 1
        assert b"store counts, words-counts-changelog-0: the 4 entries of transaction 1" in ended.stderr
        assert b"keys from 'be'" in ended.stderr
    assert b"counts of 1_0, changelog: DIFFERENT" in ended.stdout
    done("replay", "job.py", "--yes", cwd=place)
    done("verify", "job.py", cwd=place)
    assert counts(place) == {"to": 2, "be": 2, "or": 1, "not": 1}


def test_a_replay_from_a_time_is_not_comparable_and_what_it_made_is_verified(place: Path) -> None:
    printed = done("replay", "job.py", "--yes", "--from", "2100-01-01T00:00:00Z", cwd=place)
    assert "1 not comparable" in printed
    assert "the state was made from lines-0 from offset 0 on, the replay begins at" in printed
    assert "3 equal" in done("verify", "job.py", cwd=place)


def test_state_is_neither_restored_nor_verified_while_a_replay_has_not_ended(place: Path) -> None:
    with contextlib.closing(open_broker(f"log://{place}/.streamkit")) as broker:
        broker.admin.create_topic("words-replay", 1)
    for command in ("restore", "verify"):
        ended = streamkit(command, "job.py", cwd=place)
        assert ended.returncode == 2
        assert b"a replay of job words was begun and has not ended" in ended.stderr
