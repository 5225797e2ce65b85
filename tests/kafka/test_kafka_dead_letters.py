"""Dead letters on a real Kafka: written with the offsets, sent back with their receipts."""

import uuid
from pathlib import Path

import orjson
import pytest
from command_line import consumed, done, produce

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

JOB = """
from streamkit import Job

job = Job("{name}", on_error="dead_letter")
numbers = job.stream("{name}-numbers", value=int)
halves = numbers.map(lambda number: 12 // number)
halves.to("{name}-halves")
halves.group_by(str, name="by_half", shards=2).count(name="counts").to("{name}-counts")
"""


def test_letters_are_written_once_and_sent_back_once(kafka: str, tmp_path: Path) -> None:
    name, place = f"halves-{uuid.uuid4().hex[:8]}", ["--broker", f"kafka://{kafka}"]
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    # The largest record that the topic takes still fits beside the headers of a letter.
    large = b'"' + b"x" * 1_048_500 + b'"'
    produce(f"{name}-numbers", [b"3", b"0", b"4", large, b"six"], *place, cwd=tmp_path)
    summary = orjson.loads(done("run", "job.py", "--bounded", "--json", *place, cwd=tmp_path).splitlines()[-1])
    assert (summary["records_in"], summary["skipped"], summary["dead_letters"]) == (5, 3, 3)
    assert [one["value"] for one in consumed(f"{name}-halves", *place, cwd=tmp_path)] == [4, 3]
    letters = [
        orjson.loads(line)
        for line in done("dead-letters", "job.py", "list", "--json", *place, cwd=tmp_path).splitlines()
    ]
    assert [(one["offset"], one["node"]) for one in letters] == [
        (1, "map_1"),
        (3, f"{name}-numbers"),
        (4, f"{name}-numbers"),
    ]
    assert letters[1]["value"].encode() == large

    ids = [letters[0]["id"], letters[2]["id"]]
    assert "2 sent back" in done("dead-letters", "job.py", "retry", *ids, *place, cwd=tmp_path)
    assert "0 sent back, 2 had been before" in done("dead-letters", "job.py", "retry", *ids, *place, cwd=tmp_path)
    done("run", "job.py", "--bounded", "--continue", *place, cwd=tmp_path)
    left = [
        orjson.loads(line)
        for line in done("dead-letters", "job.py", "list", "--json", *place, cwd=tmp_path).splitlines()
    ]
    assert sorted((one["attempt"], one["value"][:3]) for one in left) == [(1, '"xx'), (2, "0"), (2, "six")]
