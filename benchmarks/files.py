"""`make bench` from file to file: whole processes in turn, each result checked before its time is printed."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))
import data  # the benchmarks are scripts beside each other, not a package
from measuring import CACHE, millions_a_second, print_sides, timed

HERE = Path(__file__).resolve().parent


def figures_of_auctions(path: Path) -> str:
    """Return the three figures of the hot auctions' result, each (auction, window) once."""
    rows = pl.read_parquet(path)
    assert rows.select("key", "window_start").is_duplicated().sum() == 0, "a window was published twice"
    return f"{rows.height} {rows['bids'].sum()} {rows['best'].sum()}"


def figures_of_words(path: Path) -> str:
    """Return the three figures of the word count's result."""
    counts = [orjson.loads(line)["value"] for line in path.read_bytes().splitlines()]
    return f"{len(counts)} {sum(counts)} {sum(count * count for count in counts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One line of the table; `only` chooses it."""

    only: str
    name: str
    records: int
    job: str
    source: tuple[str, str]
    sink: tuple[str, str]
    lines: Callable[[], Iterator[bytes]]
    against: Path
    against_name: str
    figures: Callable[[Path], str]
    target: float


ROWS = [
    FileRow(
        only="hot",
        name="hot auctions, .jsonl to .parquet",
        records=data.BID_COUNT,
        job="jobs/hot_auctions.py",
        source=("bids", "bids.jsonl"),
        sink=("hot_auctions", "hot_auctions.parquet"),
        lines=data.bid_lines,
        against=HERE / "against" / "polars_hot_auctions.py",
        against_name="Polars scan_ndjson and group-by",
        figures=figures_of_auctions,
        target=0.4,
    ),
    FileRow(
        only="words-columns",
        name="word count, columnar spelling, .txt to .jsonl",
        records=data.LINE_COUNT,
        job="benchmarks/jobs/word_columns.py",
        source=("lines", "lines.txt"),
        sink=("word_counts", "word_counts.jsonl"),
        lines=data.text_lines,
        against=HERE / "against" / "polars_word_count.py",
        against_name="Polars split, explode and group-by",
        figures=figures_of_words,
        target=0.4,
    ),
    FileRow(
        only="words",
        name="word count, Python functions, .txt to .jsonl",
        records=data.LINE_COUNT,
        job="jobs/word_count.py",
        source=("lines", "lines.txt"),
        sink=("word_counts", "word_counts.jsonl"),
        lines=data.text_lines,
        against=HERE / "against" / "counter_word_count.py",
        against_name="plain Counter loop",
        figures=figures_of_words,
        target=0.7,
    ),
]


def measure(row: FileRow, runs: int) -> None:
    """Measure one row of the table and print it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    source, output = CACHE / row.source[1], CACHE / row.sink[1]
    data.write_file(row.lines(), source)
    command = [
        sys.executable,
        "-m",
        "streamkit",
        "run",
        row.job,
        "--broker",
        f"log://{CACHE / 'files-log'}",
        "--overwrite",
    ]
    command += ["--input", f"{row.source[0]}={source}", "--output", f"{row.sink[0]}={output}"]
    ours, others, figures = [], [], ""
    for _ in range(runs):
        seconds, printed = timed([sys.executable, str(row.against), str(source)], POLARS_MAX_THREADS="2")
        others.append(seconds)
        seconds, _ = timed(command)
        ours.append(seconds)
        figures = row.figures(output)
        assert figures == printed.strip(), f"results differ: {figures} by streamkit, {printed.strip()} by the other"
        output.unlink()
    print_sides(
        f"{row.name}: {row.records:,} records, {runs} runs each in turn, result {figures}",
        ours,
        others,
        against_name=row.against_name,
        target=row.target,
        speed=millions_a_second(row.records, "records"),
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=[row.only for row in ROWS])
    asked = parser.parse_args()
    for row in ROWS:
        if asked.only in (None, row.only):
            measure(row, asked.runs)


if __name__ == "__main__":
    main()
