"""What a run over files promises, for each format in which it is promised; deaths are in `test_files_sigkill.py`."""

import gzip
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from file_runs import INPUTS, OUTPUTS, left_undone, lines_of, ran, rows_of_output, worked, write_rows

from streamkit import Context, EventTime, Job, Record, Tumbling, agg
from streamkit.broker import LATEST
from streamkit.cli.files import Bindings, is_bounded
from streamkit.errors import ConfigError, FileError, RecordError, StreamkitError
from streamkit.files import input_bindings
from streamkit.files.broker import FileBroker
from streamkit.files.plan import made_plan
from streamkit.records import TopicPartition
from streamkit.topology import compile_graph

TEXTS = ("in.txt", "in.txt.gz")
LINES = (*TEXTS, "in.jsonl", "in.jsonl.gz", "in.csv", "in.csv.gz")
MODIFIED_MS = 1_700_000_000_123


class Sale(msgspec.Struct):
    shop: str
    price: int
    at: int = 0


SCHEMA = {"shop": pl.String, "price": pl.Int64, "at": pl.Int64}
SALES = [{"shop": "ä", "price": 3, "at": 1_000}, {"shop": "b", "price": 5, "at": 12_000}]


def is_text(name: str) -> bool:
    return ".txt" in name


def put(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_sales(path: Path) -> None:
    """Write two records in the format of the name."""
    if is_text(path.name):
        put(path, b"one\ntwo\n")
    else:
        write_rows(path, SALES, SCHEMA)


def copying(name: str, **source: Any) -> Job:
    """Return a job that writes what it reads from a file of that name."""
    job = Job("copying")
    job.stream("rows", value=str if is_text(name) else Sale, **source).to("copies")
    return job


def copied(directory: Path, name: str, **source: Any) -> list[dict[str, Any]]:
    """Return what a job that copies writes."""
    output = directory / "copies.jsonl"
    ran(copying(name, **source), directory, [f"rows={directory / name}"], [f"copies={output}"])
    return rows_of_output(output)


# --- What a record is


@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_each_line_or_row_is_a_record(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / name)
    values = [row["value"] for row in copied(tmp_path, name)]
    assert values == (["one", "two"] if is_text(name) else SALES)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("name", LINES)
def test_a_complete_last_line_without_a_newline_is_a_record(tmp_path: Path, name: str, ended: bool) -> None:
    data = {".txt": b"one\ntwo\n", ".csv": b"shop,price,at\nb,3,0\nb,5,0\n"}.get(
        Path(name.removesuffix(".gz")).suffix, lines_of([{"shop": "b", "price": price} for price in (3, 5)])
    )
    put(tmp_path / name, data if ended else data.removesuffix(b"\n"))
    assert [row["value"] if is_text(name) else row["value"]["price"] for row in copied(tmp_path, name)] == (
        ["one", "two"] if is_text(name) else [3, 5]
    )


@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_records_without_a_timestamp_of_their_own_have_the_files(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / name)
    os.utime(tmp_path / name, ns=(1, MODIFIED_MS * 1_000_000 + 999_999))
    assert {row["timestamp_ms"] for row in copied(tmp_path, name)} == {MODIFIED_MS}


@pytest.mark.parametrize("name", INPUTS)
def test_records_with_a_timestamp_of_their_own_have_that(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / name)
    assert [row["timestamp_ms"] for row in copied(tmp_path, name, timestamp="at")] == [1_000, 12_000]


@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_a_file_is_read_in_place_and_never_copied_into_the_log(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / name)
    place, copies = TopicPartition("rows", 0), TopicPartition("copies", 0)
    with left_undone(tmp_path, copying(name), f"rows={tmp_path / name}", f"copies={tmp_path}/out.csv") as (run, broker):
        assert isinstance(broker, FileBroker)
        assert worked(run, broker).records_in == 2
        ends = broker._beneath.admin.list_offsets({place: LATEST, copies: LATEST})
    assert ends[place] == 0
    assert ends[copies] > 0, "what is on the log can be told from what is not"


# --- What is no record


WHOLE = {
    ".txt": (str, b"one\n", b"tw\xc3"),
    ".jsonl": (Sale, lines_of(SALES[:1]), b'{"shop":"\xc3","price":1}'),
    ".csv": (Sale, b"shop,price\nb,3\n", b"\xc3,1"),
}
"""A value's type, good bytes, and a last line in which a character of UTF-8 is cut."""


@pytest.mark.parametrize("name", LINES)
def test_cut_utf8_is_an_error_that_names_file_and_byte(tmp_path: Path, name: str) -> None:
    _, good, cut = WHOLE[Path(name.removesuffix(".gz")).suffix]
    put(tmp_path / name, good + cut)
    with pytest.raises(StreamkitError) as caught:
        copied(tmp_path, name)
    where = "inflated byte" if name.endswith(".gz") and ".csv" not in name else "byte"
    assert f"{tmp_path / name} {where} {len(good)}" in caught.value.detail, str(caught.value)
    assert not (tmp_path / "copies.jsonl").exists()


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_cut_json_is_an_error_that_names_file_and_byte(tmp_path: Path, name: str, typed: bool) -> None:
    good = lines_of(SALES)
    put(tmp_path / name, good + b'{"shop":"b","pri')
    job = Job("copying")
    source = job.stream("rows", value=Sale) if typed else job.stream("rows")
    source.map(lambda row: row).to("copies")
    with pytest.raises(RecordError) as caught:
        ran(job, tmp_path, [f"rows={tmp_path / name}"], [f"copies={tmp_path}/copies.jsonl"])
    where = "inflated byte" if name.endswith(".gz") else "byte"
    assert f"{tmp_path / name} {where} {len(good)}" in caught.value.detail, str(caught.value)


@pytest.mark.parametrize("keep", [-1, -8, 15, 5, 0])
@pytest.mark.parametrize("name", [name for name in LINES if name.endswith(".gz")])
def test_a_truncated_gz_is_an_error_that_names_file_and_byte(tmp_path: Path, name: str, keep: int) -> None:
    write_sales(tmp_path / name)
    data = (tmp_path / name).read_bytes()[:keep]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError, match="the file is cut") as caught:
        copied(tmp_path, name)
    assert caught.value.detail == f"{tmp_path / name} byte {len(data)}"


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_truncated_parquet_is_an_error_that_names_it(tmp_path: Path, keep: int) -> None:
    write_sales(tmp_path / "in.parquet")
    (tmp_path / "in.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"in\.parquet' is no parquet file, or a damaged one"):
        copied(tmp_path, "in.parquet")


# --- What an output looks like


def windowed(job: Job) -> None:
    at = EventTime("at", out_of_orderness=timedelta(0))
    group = job.stream("rows", value=Sale, timestamp=at).group_by("shop", type=str, name="by_shop", shards=1)
    group.window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final").agg(
        {"n": agg.count(), "best": agg.max("price")}, name="best"
    ).to("out")


def windowed_count(job: Job) -> None:
    at = EventTime("at", out_of_orderness=timedelta(0))
    group = job.stream("rows", value=Sale, timestamp=at).group_by("price", type=int, name="by_price", shards=1)
    group.window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final").count(name="counts").to("out")


def counted(job: Job) -> None:
    group = job.stream("rows", value=Sale, timestamp="at").group_by("shop", type=str, name="by_shop", shards=1)
    group.count(name="counts").to("out")


def objects(job: Job) -> None:
    job.stream("rows", value=Sale, timestamp="at").to("out")


def texts(job: Job) -> None:
    job.stream("rows", value=Sale, timestamp="at").map(shop_of).to("out")


def shop_of(sale: Sale) -> str:
    return sale.shop


BESIDE, BOUNDS = ("key", "timestamp_ms"), ("window_start", "window_end")
SHAPES: dict[str, tuple[Callable[[Job], None], tuple[str, ...], list[tuple[Any, ...]]]] = {
    "an object": (objects, (*BESIDE, "shop", "price", "at"), [(None, 1_000, "ä", 3, 1_000),
                                                              (None, 12_000, "b", 5, 12_000)]),
    "a scalar": (counted, (*BESIDE, "value"), [("b", 12_000, 1), ("ä", 12_000, 1)]),
    "a text": (texts, (*BESIDE, "value"), [(None, 1_000, "ä"), (None, 12_000, "b")]),
    "an object of a window": (windowed, (*BESIDE, *BOUNDS, "n", "best"), [("b", 19_999, 10_000, 20_000, 1, 5),
                                                                          ("ä", 9_999, 0, 10_000, 1, 3)]),
    "a scalar of a window": (windowed_count, (*BESIDE, *BOUNDS, "value"), [(3, 9_999, 0, 10_000, 1),
                                                                           (5, 19_999, 10_000, 20_000, 1)]),
}  # fmt: skip
"""What makes it, its columns, and its rows."""


def written(directory: Path, shape: str, name: str) -> list[dict[str, Any]]:
    """Return what is written of a job over the file `in.jsonl`."""
    job = Job("shaped")
    SHAPES[shape][0](job)
    ran(job, directory, [f"rows={directory}/in.jsonl"], [f"out={directory / name}"])
    return rows_of_output(directory / name)


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_is_columns_beside_key_timestamp_and_window(tmp_path: Path, shape: str, name: str) -> None:
    write_sales(tmp_path / "in.jsonl")
    rows = written(tmp_path, shape, name)
    _, columns, expected = SHAPES[shape]
    assert [tuple(row) for row in rows] == [columns] * len(expected)
    assert in_order([tuple(row.values()) for row in rows]) == in_order(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_in_a_line_of_json_stands_by_itself(tmp_path: Path, shape: str) -> None:
    write_sales(tmp_path / "in.jsonl")
    rows = written(tmp_path, shape, "out.jsonl")
    _, columns, expected = SHAPES[shape]
    assert {tuple(row) for row in rows} == {("key", "timestamp_ms", "value")}
    values = [value if isinstance(value := row["value"], dict) else {"value": value} for row in rows]
    assert {tuple(value) for value in values} == {columns[len(BESIDE) :]}
    flat = [(row["key"], row["timestamp_ms"], *value.values()) for row, value in zip(rows, values, strict=True)]
    assert in_order(flat) == in_order(expected)


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_rows_give_an_empty_valid_file(tmp_path: Path, shape: str, name: str) -> None:
    (tmp_path / "in.jsonl").touch()
    assert written(tmp_path, shape, name) == []
    columns = SHAPES[shape][1]
    match name:
        case "out.jsonl":
            assert (tmp_path / name).read_bytes() == b""
        case "out.csv":
            assert (tmp_path / name).read_text() == ",".join(columns) + "\n"
        case _:
            assert tuple(pl.read_parquet_schema(tmp_path / name)) == columns


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", [*TEXTS, *INPUTS, "no bytes.txt", "no bytes.jsonl", "no bytes.csv"])
def test_an_input_without_records_gives_an_empty_valid_file(tmp_path: Path, name: str, output: str) -> None:
    if is_text(name) or name.startswith("no bytes"):
        put(tmp_path / name, b"")
    else:
        write_rows(tmp_path / name, [], SCHEMA)
    summary = ran(copying(name), tmp_path, [f"rows={tmp_path / name}"], [f"copies={tmp_path / output}"])
    assert summary.records_in == 0
    assert rows_of_output(tmp_path / output) == []


# --- Where an output may be


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_that_exists_is_replaced_with_overwrite_alone(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / "in.jsonl")
    (tmp_path / name).write_bytes(b"mine")
    bound = [f"rows={tmp_path}/in.jsonl"], [f"copies={tmp_path / name}"]
    with pytest.raises(ConfigError, match=f"{name}' exists") as caught:
        ran(copying("in.jsonl"), tmp_path, *bound)
    assert "--overwrite" in caught.value.hint
    assert (tmp_path / name).read_bytes() == b"mine"
    ran(copying("in.jsonl"), tmp_path, *bound, overwrite=True)
    assert len(rows_of_output(tmp_path / name)) == 2


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_directory_of_an_output_must_exist(tmp_path: Path, name: str) -> None:
    write_sales(tmp_path / "in.jsonl")
    with pytest.raises(ConfigError, match="directory of the output") as caught:
        ran(copying("in.jsonl"), tmp_path, [f"rows={tmp_path}/in.jsonl"], [f"copies={tmp_path}/no/{name}"])
    assert caught.value.hint == f"mkdir -p {tmp_path}/no"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"], "nothing was made"


# --- A run of its own


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_a_run_that_is_done_leaves_its_output_alone(tmp_path: Path, name: str, output: str) -> None:
    write_sales(tmp_path / name)
    ran(copying(name), tmp_path, [f"rows={tmp_path / name}"], [f"copies={tmp_path / output}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, output, "log"])
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "log").rglob("*")] == ["log/files"]


def begun(directory: Path, job: Job, bound: str, output: str) -> str:
    """Begin a run, or go on with it, and leave it; return its directory."""
    with left_undone(directory, job, bound, output) as (run, _):
        return run.directory


@pytest.mark.parametrize("change", ["longer", "shorter", "touched", "gone", "one more"])
@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_a_file_that_changed_is_refused_by_a_run_that_goes_on(tmp_path: Path, name: str, change: str) -> None:
    path, bound = tmp_path / name, f"rows={tmp_path}/*in.*"
    write_sales(path)
    directory = begun(tmp_path, copying(name), bound, f"copies={tmp_path}/out.csv")
    assert begun(tmp_path, copying(name), bound, f"copies={tmp_path}/out.csv") == directory, "the same run goes on"
    facts, data = path.stat(), path.read_bytes()
    match change:
        case "touched":
            os.utime(path, ns=(1, facts.st_mtime_ns + 1))
        case "gone":
            path.rename(tmp_path / "gone")
            (tmp_path / f"2{name}").touch()
        case "one more":
            path = tmp_path / f"2{name}"
            path.write_bytes(data)
        case _:
            path.write_bytes(data + b"\n" if change == "longer" else data[:-1])
            os.utime(path, ns=(1, facts.st_mtime_ns))
    with pytest.raises(ConfigError) as caught:
        begun(tmp_path, copying(name), bound, f"copies={tmp_path}/out.csv")
    assert str(path) in caught.value.primary
    assert f"rm -r {directory}" in caught.value.hint


@pytest.mark.parametrize("other", ["job", "input", "output"])
def test_another_job_or_binding_is_another_run(tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sales(tmp_path / "in.jsonl")
    write_sales(tmp_path / "2.jsonl")
    job = Job("another")
    job.stream("rows").to("copies")
    first = (copying("in.jsonl"), "rows=in.jsonl", "copies=out.csv")
    second = {
        "job": (job, *first[1:]),
        "input": (first[0], "rows=2.jsonl", first[2]),
        "output": (*first[:2], "copies=2.csv"),
    }[other]
    assert begun(tmp_path, *first) != begun(tmp_path, *second)
    assert begun(tmp_path, *first) == begun(tmp_path, *first)


@pytest.mark.parametrize("name", [*TEXTS, *INPUTS])
def test_how_a_file_is_cut_depends_on_its_size_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lines of one length, and rows of one width, so that there is nothing else to see in the cuts."""
    monkeypatch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
    monkeypatch.setattr("streamkit.files.plan.PART_BYTES", 100)
    cuts = []
    for number in (1, 2):
        path = tmp_path / f"{number}{name}"
        if path.suffix == ".parquet":
            pl.DataFrame({"n": [number] * 200}).write_parquet(path, compression="uncompressed", statistics=False)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(b"%d234567\n" % number * 100, compresslevel=0))
        else:
            path.write_bytes(b"%d234567\n" % number * 100)
        os.utime(path, ns=(1, number))
        (partitions,) = made_plan("job", input_bindings([f"rows={path}"], ["rows"]), (), ()).inputs.values()
        cuts.append([(part.begin, part.end, part.offset) for one in partitions for part in one.parts])
    assert cuts[0] == cuts[1]
    assert (len(cuts[0]) > 1) == (name in ("in.txt", "in.jsonl", "in.parquet"))


@pytest.mark.parametrize(
    ("bound", "bounded"), [(("left", "right"), True), (("left",), False), (("right",), False), ((), False)]
)
def test_a_run_is_bounded_if_every_source_is_a_file(bound: tuple[str, ...], bounded: bool) -> None:
    job = Job("both")
    job.stream("left", value=str).merge(job.stream("right", value=str)).to("out")
    bindings = Bindings(inputs=[f"{topic}=in.txt" for topic in bound], outputs=(), overwrite=False)
    assert is_bounded(compile_graph(job.build()), bindings) == bounded


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_row_may_be_larger_than_a_record_of_a_topic(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.txt").write_bytes(b"a\nb\n")
    job = Job("long")
    job.stream("lines", value=str).map(threefold).to("long")
    ran(job, tmp_path, [f"lines={tmp_path}/in.txt"], [f"long={tmp_path / name}"])
    assert [row["value"] for row in rows_of_output(tmp_path / name)] == ["a" * 3_000_000, "b" * 3_000_000]


def threefold(line: str) -> str:
    return line * 3_000_000


def passed_on(ctx: Context, record: Record[Any, Any]) -> Iterable[Record[Any, Any]]:
    yield record


@pytest.mark.parametrize(
    "change", ["a node more", "a node less", "another type", "another type in a store", "one more sink of its topic"]
)
def test_a_job_that_changed_is_refused_by_a_run_that_goes_on(tmp_path: Path, change: str) -> None:
    def job_of(change: str = "") -> Job:
        job = Job("copying")
        rows = job.stream("rows", value=dict[str, int] if change == "another type" else Sale)
        kept = rows if change == "a node less" else rows.filter(bool, name="kept")
        kept = kept.filter(bool, name="again") if change == "a node more" else kept
        if change == "one more sink of its topic":
            rows.to("copies")
        stored: type[Any] = str if change == "another type in a store" else int
        kept.process(passed_on, stores=[job.store("seen", key=str, value=stored)]).to("copies")
        return job

    write_sales(tmp_path / "in.jsonl")
    bound = f"rows={tmp_path}/in.jsonl", f"copies={tmp_path}/out.csv"
    directory = begun(tmp_path, job_of(), *bound)
    with pytest.raises(ConfigError, match="the job has changed since the run began") as caught:
        begun(tmp_path, job_of(change), *bound)
    assert f"rm -r {directory}" in caught.value.hint
    assert begun(tmp_path, job_of(), *bound) == directory, "undone, it goes on"
