"""Bad lines and rows of files of each format, in a job that goes on over them."""

import gzip
import logging
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from command_line import done, streamkit
from file_runs import ran, rows_of_output

from streamkit import Job
from streamkit.errors import FileError
from streamkit.graph.nodes import OnError


class Row(msgspec.Struct):
    n: int


def numbers(on_error: OnError, value_type: Any) -> Job:
    job = Job("numbers", on_error=on_error)
    job.stream("rows", value=value_type).map(halved).to("halves")
    return job


def halved(row: Any) -> int:
    number = row.n if isinstance(row, Row) else int(row)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


LINES: dict[str, tuple[Any, bytes, bytes]] = {
    "in.txt": (str, b"2\n", b"three\n"),
    "in.jsonl": (Row, b'{"n":2}\n', b'{"n":\n'),
    "in.csv": (Row, b"n\n2\n", b"three\n"),
}
"""A type, good bytes, and a bad line."""


def write(path: Path) -> tuple[Any, str]:
    """Write a good record, a bad one and a good one; return their type, and where the bad one lies."""
    if path.suffix == ".parquet":
        pl.DataFrame({"n": [2, 3, 4]}).write_parquet(path)
        return Row, f"{path} row 1"
    type_, good, bad = LINES[path.name.removesuffix(".gz")]
    data = good + bad + good.splitlines()[-1]
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return type_, f"{path} {'inflated byte' if path.suffix == '.gz' else 'byte'} {len(good)}"


FORMATS = [*LINES, *(f"{name}.gz" for name in LINES), "in.parquet"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("output", ["letters.jsonl", "letters.csv", "letters.parquet"])
def test_a_dead_letter_names_file_and_place(tmp_path: Path, name: str, output: str) -> None:
    type_, place = write(tmp_path / name)
    summary = ran(
        numbers("dead_letter", type_),
        tmp_path,
        [f"rows={tmp_path / name}"],
        [f"halves={tmp_path}/halves.jsonl", f"numbers.dead_letter={tmp_path / output}"],
    )
    assert (summary.records_in, summary.skipped, summary.dead_letters) == (3, 1, 1)
    assert len(rows_of_output(tmp_path / "halves.jsonl")) == 2
    (row,) = rows_of_output(tmp_path / output)
    letter = row["value"] if output.endswith(".jsonl") else row
    assert (letter["place"], letter["topic"]) == (place, "rows")


@pytest.mark.parametrize("name", FORMATS)
def test_a_warning_names_file_and_place(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    type_, place = write(tmp_path / name)
    with caplog.at_level(logging.WARNING, "streamkit"):
        ran(numbers("skip", type_), tmp_path, [f"rows={tmp_path / name}"], [f"halves={tmp_path}/halves.jsonl"])
    (said,) = caplog.messages
    assert said.startswith(f"{place}: set aside (")


@pytest.mark.parametrize("on_error", ["fail", "skip", "dead_letter"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in.txt.gz", gzip.compress(b"2\n4\n")[:-1]),
        ("in.csv", b"n\n2\n\xff\n"),
        ("in.csv", b"n\n2\n3,4\n"),
    ],
    ids=["cut gzip", "csv that is no UTF-8", "a cell too many"],
)
def test_what_nothing_can_be_told_apart_behind_stops_the_run_under_any_policy(
    tmp_path: Path, name: str, data: bytes, on_error: OnError
) -> None:
    (tmp_path / name).write_bytes(data)
    outputs = [f"halves={tmp_path}/halves.jsonl"]
    outputs += [f"numbers.dead_letter={tmp_path}/letters.jsonl"] if on_error == "dead_letter" else []
    with pytest.raises(FileError) as caught:
        ran(numbers(on_error, Row if ".csv" in name else str), tmp_path, [f"rows={tmp_path / name}"], outputs)
    assert caught.value.detail.startswith(f"{tmp_path / name} byte ")
    assert not (tmp_path / "halves.jsonl").exists()


JOB = """
from streamkit import Job
job = Job("numbers", on_error="skip")
job.stream("rows", value=int).merge(job.stream("more", value=int)).to("copies")
"""


@pytest.mark.process
@pytest.mark.slow
def test_the_command_names_the_file_in_its_warnings_and_the_topic_of_what_is_in_none(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "in.jsonl").write_bytes(b"1\nx\n")
    (tmp_path / "more.jsonl").write_bytes(b"1\n2\nx\n")
    done("produce", "more", "more.jsonl", cwd=tmp_path)
    ended = streamkit(
        "run", "job.py", "--bounded", "--input", "rows=in.jsonl", "--output", "copies=o.csv", cwd=tmp_path
    )
    said = ended.stderr.decode()
    assert ended.returncode == 0, said
    assert f"{tmp_path}/in.jsonl byte 2: set aside (" in said
    assert "record more-0 offset 2: set aside (" in said
