"""How files become partitions: by their sizes alone."""

import os
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import ConfigError, FileError
from streamkit.files import InputBinding, input_bindings
from streamkit.files.plan import FilePartition, RunPlan, check_unchanged, made_plan

PART = 1000


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
    monkeypatch.setattr("streamkit.files.plan.PART_BYTES", PART)


def partitions(*paths: Path, whole: bool = False) -> tuple[FilePartition, ...]:
    inputs = input_bindings([f"lines={path}" for path in paths], ["lines"])
    return made_plan("job", inputs, (), ["lines"] if whole else []).inputs["lines"]


def spans(partition: FilePartition) -> list[tuple[str, int, int, int]]:
    return [(Path(part.path).name, part.begin, part.end, part.offset) for part in partition.parts]


@pytest.mark.usefixtures("small_parts")
def test_a_file_is_cut_at_the_first_line_that_begins_behind_each_multiple(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = b"x" * 149 + b"\n"
    path.write_bytes(line * 20)
    cuts = [begin for partition in partitions(path) for _, begin, _, _ in spans(partition)]
    assert cuts == [0, 1050, 2100], "behind 1000 and 2000"
    path.write_bytes(b"x" * 999 + b"\n" + b"y" * 1500)
    assert [spans(one)[0][1:3] for one in partitions(path)] == [(0, 1000), (1000, 2500)], "a line begins right there"


@pytest.mark.usefixtures("small_parts")
def test_a_line_longer_than_a_part_is_in_one_partition(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a\n" + b"x" * 3500 + b"\n" + b"b\n")
    assert [spans(one)[0][1:3] for one in partitions(path)] == [(0, 3503), (3503, 3505)]


@given(lengths=st.lists(st.integers(0, 400), max_size=30), ended=st.booleans())
def test_parts_are_whole_lines_and_all_of_the_file(
    lengths: list[int], ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("parts") / "a.txt"
    data = b"\n".join(b"x" * length for length in lengths) + (b"\n" if ended else b"")
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
        patch.setattr("streamkit.files.plan.PART_BYTES", 300)
        found = [(part.begin, part.end) for one in partitions(path) for part in one.parts]
    assert all(end == begin for (_, end), (begin, _) in pairwise(found))
    assert b"".join(data[begin:end] for begin, end in found) == data
    assert all(data[begin - 1 : begin] == b"\n" for begin, _ in found[1:])


@pytest.mark.usefixtures("small_parts")
def test_small_files_are_put_together_in_order_and_large_ones_are_not(tmp_path: Path) -> None:
    sizes = {"a.txt": 400, "b.txt": 500, "c.txt": 300, "d.txt": 1600, "e.txt": 10, "empty.txt": 0}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes((b"x" * 99 + b"\n") * (size // 100) + b"y" * (size % 100))
    found = [spans(one) for one in partitions(*(tmp_path / name for name in sizes))]
    assert found == [
        [("a.txt", 0, 400, 0), ("b.txt", 0, 500, 400)],
        [("c.txt", 0, 300, 0)],
        [("d.txt", 0, 1000, 0)],
        [("d.txt", 1000, 1600, 1000)],
        [("e.txt", 0, 10, 0)],
    ]
    (whole,) = partitions(*(tmp_path / name for name in sizes), whole=True)
    assert [part.offset for part in whole.parts] == [0, 400, 900, 1200, 2200, 2800]
    assert (whole.begin_offset, whole.end_offset) == (0, 2810)
    assert [whole.part_at(offset) for offset in (0, 399, 400, 2809)] == [whole.parts[index] for index in (0, 0, 1, 5)]
    assert whole.part_at(2810) is None


def test_files_without_records_are_a_partition_without_any(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (empty,) = partitions(tmp_path / "a.txt")
    assert (empty.parts, empty.begin_offset, empty.end_offset) == ((), 0, 0)


@pytest.mark.usefixtures("small_parts")
def test_csv_and_gzip_are_not_cut_and_rows_of_parquet_evenly(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n" * 1000)
    (tmp_path / "a.txt.gz").write_bytes(bytes(2000))
    pl.DataFrame({"a": list(range(1000))}).write_parquet(tmp_path / "a.parquet", compression="uncompressed")
    size = (tmp_path / "a.parquet").stat().st_size
    csv, gz, *rows = [
        spans(one)[0] for one in partitions(*(tmp_path / f"a.{end}" for end in ("csv", "txt.gz", "parquet")))
    ]
    assert (csv[1:], gz[1:3]) == ((0, 4000, 0), (0, 2000 * 1032))
    assert len(rows) == -(-size // PART)
    assert (rows[0][1], rows[-1][2]) == (0, 1000)
    assert all(end == begin for (_, _, end, _), (_, begin, _, _) in pairwise(rows))


def begun(tmp_path: Path) -> tuple[RunPlan, tuple[InputBinding, ...]]:
    (tmp_path / "a.txt").write_bytes(b"a\n")
    (tmp_path / "b.txt").write_bytes(b"b\n")
    inputs = input_bindings([f"lines={tmp_path}/*.txt"], ["lines"])
    return made_plan("job", inputs, (), ()), inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [("longer", "has changed since"), ("touched", "has changed since"), ("gone", "is gone"), ("more", "was not there")],
)
def test_a_run_goes_on_with_the_files_that_it_began_with_alone(tmp_path: Path, change: str, message: str) -> None:
    plan, inputs = begun(tmp_path)
    check_unchanged(plan, inputs, "dir")
    path = tmp_path / "b.txt"
    match change:
        case "longer":
            path.write_bytes(b"b\nc\n")
        case "touched":
            os.utime(path, ns=(1, 1))
        case "gone":
            path.unlink()
        case _:
            path = tmp_path / "c.txt"
            path.touch()
    inputs = input_bindings([f"lines={tmp_path}/*.txt"], ["lines"])
    with pytest.raises(ConfigError, match=message) as caught:
        check_unchanged(plan, inputs, "dir")
    assert str(path) in caught.value.primary
    assert "rm -r dir" in caught.value.hint


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ConfigError, match="is no parquet file, or a damaged one"):
        partitions(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz"])
def test_a_gzip_without_bytes_is_cut(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(FileError, match="the file is cut") as caught:
        partitions(tmp_path / name)
    assert caught.value.detail == f"{tmp_path / name} byte 0"
