"""Jobs from files to files, as a user types them."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from command_line import ROOT, consumed, done, produce, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT, HOT_AUCTIONS, SENSOR_MEANS, RECEIPTS = (
    str(ROOT / "jobs" / f"{name}.py") for name in ("word_count", "hot_auctions", "sensor_means", "receipts")
)
BIDS = [
    {"auction": n % 3, "bidder": n, "price": 100 * n % 7, "channel": "c", "url": f'u "{n}", ä', "ts": 900 * n}
    for n in range(60)
]
READINGS = [{"key": f"s{n % 3}", "celsius": n / 7, "at": 7_000 * n} for n in range(60)]


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def written(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an output, whatever its format; a value of `.jsonl` flat, as the other formats have it."""
    if path.suffix == ".jsonl":
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        return [flat(row) for row in rows]
    if path.suffix == ".csv":
        return pl.read_csv(path, infer_schema_length=None).to_dicts()
    return pl.read_parquet(path).to_dicts()


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    value = record["value"]
    columns = value if isinstance(value, dict) else {"value": value}
    return {"key": record["key"], "timestamp_ms": record["timestamp_ms"], **columns}


def in_order(rows: Iterable[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return rows with keys as text, without the columns that are not `names` if there are any, in one order."""
    chosen = [{**row, "key": str(row["key"])} for row in rows]
    kept = [{name: row[name] for name in names or row} for row in chosen]
    return sorted(kept, key=lambda row: json.dumps(row, sort_keys=True))


@pytest.fixture
def in_topics(tmp_path: Path) -> Callable[..., list[dict[str, object]]]:
    """Runs a job from a topic to a topic, in a log of its own."""

    def run(job: str, source: str, lines: list[bytes], sink: str, *arguments: str) -> list[dict[str, object]]:
        directory = tmp_path / "topics"
        directory.mkdir()
        produce(source, lines, *arguments, cwd=directory)
        done("run", job, "--bounded", cwd=directory)
        return consumed(sink, cwd=directory)

    return run


def write_input(path: Path, rows: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(rows)
    match path.suffixes:
        case [".csv"]:
            frame.write_csv(path)
        case [".parquet"]:
            frame.write_parquet(path)
        case [".csv", ".gz"]:
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
        case _:
            path.write_bytes(gzip.compress(json_lines(rows)) if path.suffix == ".gz" else json_lines(rows))


def test_words_of_texts_are_counted_as_those_of_a_topic_are(
    tmp_path: Path, in_topics: Callable[..., list[dict[str, object]]]
) -> None:
    text = [b"to be or not to be", b"that is the question", b"", "être".encode(), b"to be"]
    (tmp_path / "a.txt").write_bytes(b"\r\n".join(text[:2]) + b"\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"\n".join(text[2:])))
    printed = done("run", WORD_COUNT, "--input", "lines=*.txt*", "--output", "word_counts=out.jsonl", cwd=tmp_path)
    assert printed.startswith("word_count: finished: 5 records in")
    topic = {row["key"]: row["value"] for row in in_topics(WORD_COUNT, "lines", text, "word_counts")}
    rows = written(tmp_path / "out.jsonl")
    assert {row["key"]: row["value"] for row in rows} == topic
    assert len(rows) == len(topic), "a table is the last value of each key"
    assert list((tmp_path / ".streamkit" / "files").iterdir()) == [], "a run that is done leaves nothing"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.txt", "b.txt.gz", "out.jsonl"]


@pytest.mark.parametrize(
    ("source", "sink"),
    [("in.jsonl", "out.csv"), ("in.csv", "out.parquet"), ("in.parquet", "out.jsonl"), ("in.jsonl.gz", "out.parquet"),
     ("in.csv.gz", "out.csv")],
)  # fmt: skip
def test_windows_of_files_are_those_of_a_topic(
    tmp_path: Path, in_topics: Callable[..., list[dict[str, object]]], source: str, sink: str
) -> None:
    write_input(tmp_path / source, BIDS)
    done("run", HOT_AUCTIONS, "--input", f"bids={source}", "--output", f"hot_auctions={sink}", cwd=tmp_path)
    topic = in_topics(HOT_AUCTIONS, "bids", list(map(orjson.dumps, BIDS)), "hot_auctions")
    rows = written(tmp_path / sink)
    assert in_order(rows) == in_order(map(flat, topic))
    assert list(rows[0]) == ["key", "timestamp_ms", "window_start", "window_end", "bids", "best"]


@pytest.mark.parametrize(
    ("source", "sink"), [("in.jsonl", "out.parquet"), ("in.csv", "out.jsonl"), ("in.parquet", "out.csv")]
)
def test_a_stream_that_is_grouped_by_its_own_key_has_it_in_its_files(
    tmp_path: Path, in_topics: Callable[..., list[dict[str, object]]], source: str, sink: str
) -> None:
    # In two files, so that each key is in both.
    (tmp_path / "in").mkdir()
    write_input(tmp_path / "in" / f"1{source}", READINGS[:30])
    write_input(tmp_path / "in" / f"2{source}", READINGS[30:])
    command = ("--input", "readings=in/*", "--output", f"sensor_means={sink}", "--output", "sensor_late=late.csv")
    done("run", SENSOR_MEANS, *command, cwd=tmp_path)
    lines = list(map(orjson.dumps, READINGS))
    topic = in_topics(SENSOR_MEANS, "readings", lines, "sensor_means", "--key-field", "key")
    assert in_order(written(tmp_path / sink)) == in_order(map(flat, topic))
    assert (tmp_path / "late.csv").read_text() == "key,timestamp_ms,celsius,at\n", "no rows: an empty, valid file"


@pytest.mark.parametrize("sink", ["out.jsonl", "out.csv", "out.parquet"])
def test_no_records_give_an_empty_valid_file(tmp_path: Path, sink: str) -> None:
    (tmp_path / "in.jsonl").touch()
    done("run", HOT_AUCTIONS, "--input", "bids=in.jsonl", "--output", f"hot_auctions={sink}", cwd=tmp_path)
    assert written(tmp_path / sink) == []
    if sink.endswith("parquet"):
        assert dict(pl.read_parquet_schema(tmp_path / sink)) == {
            "key": pl.Int64, "timestamp_ms": pl.Int64, "window_start": pl.Int64, "window_end": pl.Int64,
            "bids": pl.Int64, "best": pl.Int64,
        }  # fmt: skip


GOOD, CUT_JSON = b'{"auction":1,"bidder":1,"price":1,"channel":"c","url":"u","ts":1}\n', b'{"auction":1,"bid'


@pytest.mark.parametrize(
    ("job", "name", "data", "place", "reason"),
    [
        (HOT_AUCTIONS, "bids=in.jsonl", GOOD + CUT_JSON, f"in.jsonl byte {len(GOOD)}", "does not decode as Bid"),
        (HOT_AUCTIONS, "bids=in.jsonl.gz", gzip.compress(GOOD + CUT_JSON), f"in.jsonl.gz inflated byte {len(GOOD)}",
         "does not decode as Bid"),
        (WORD_COUNT, "lines=in.txt", b"ok\nr\xc3", "in.txt byte 3", "unexpected end of data"),
        (WORD_COUNT, "lines=in.txt.gz", gzip.compress(b"ok\n")[:-1], "in.txt.gz byte", "the file is cut"),
        (HOT_AUCTIONS, "bids=in.csv", b"auction,bidder,price,channel,url,ts\n1,1,1,c,u,1\n2,1,x,c,u,1\n",
         "in.csv byte 48", "Expected `int`, got `str` - at `$.price`"),
    ],
    ids=["cut JSON", "cut JSON in gzip", "cut UTF-8", "cut gzip", "csv cell"],
)  # fmt: skip
def test_a_bad_record_is_an_error_that_names_file_and_byte_and_leaves_the_output_alone(
    tmp_path: Path, job: str, name: str, data: bytes, place: str, reason: str
) -> None:
    (tmp_path / name.partition("=")[2]).write_bytes(data)
    sink = "hot_auctions" if job == HOT_AUCTIONS else "word_counts"
    (tmp_path / "out.csv").write_bytes(b"as it was\n")
    ended = streamkit("run", job, "--input", name, "--output", f"{sink}=out.csv", "--overwrite", cwd=tmp_path)
    said = ended.stderr.decode()
    assert (ended.returncode, place in said, reason in said) == (1, True, True), said
    assert (tmp_path / "out.csv").read_bytes() == b"as it was\n"
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--input", "lines=no.txt", "--output", "word_counts=o.csv"], "the input 'no.txt' does not exist"),
        (["--output", "word_counts=o.csv"], "reads a topic, which has no end"),
        (["--input", "lines=in.txt", "--output", "word_counts=there.csv"], "there.csv' exists"),
        (["--input", "lines=in.txt", "--output", "word_counts=no/o.csv"], "directory of the output 'no/o.csv'"),
        (["--input", "lines=in.txt", "--output", "word_counts=o.csv", "--continue", "--bounded"], "go with topics"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "in.txt").write_bytes(b"a\n")
    (tmp_path / "there.csv").write_bytes(b"mine")
    ended = streamkit("run", WORD_COUNT, *arguments, cwd=tmp_path)
    assert (ended.returncode, reason in ended.stderr.decode()) == (2, True), ended.stderr.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "there.csv"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_tables_of_files_are_joined(tmp_path: Path, form: str) -> None:
    customers = [{"key": f"c{n % 4}", "name": f"name {n}", "at": n} for n in range(6)]
    orders = [{"key": f"c{n % 5}", "item": "i", "cents": n, "at": 100 + n} for n in range(50)]
    for name, rows in (("customers", customers), ("orders", orders)):
        write_input(tmp_path / f"{name}.{form}", rows)
    bound = [f"--input={name}={name}.{form}" for name in ("customers", "orders")]
    done("run", RECEIPTS, *bound, f"--output=accounts=accounts.{form}", "--output=receipts=r.jsonl", cwd=tmp_path)
    names = {row["key"]: row["name"] for row in customers}
    expected = [
        {"key": key, "name": name, "cents": sum(row["cents"] for row in orders if row["key"] == key)}
        for key, name in names.items()
    ]
    assert in_order(written(tmp_path / f"accounts.{form}"), "key", "name", "cents") == in_order(expected)
