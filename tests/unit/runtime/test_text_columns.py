"""A stream of text has one column, `value`, and runs in either spelling with one result."""

import msgspec
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Job
from streamkit.testing import TestDriver


class Word(msgspec.Struct):
    word: str


def in_columns() -> Job:
    job = Job("words")
    lines = job.stream("lines", value=str)
    kept = lines.filter(pl.col("value").str.len_bytes() > 0)
    kept.to("kept")

    @kept.map_batches
    def split(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select("__row__", word=pl.col("value").str.split(" ")).explode("word")

    split.typed(Word).group_by("word", type=str, name="by_word").count(name="counts").to("counts")
    return job


def in_python() -> Job:
    job = Job("words")
    lines = job.stream("lines", value=str)
    kept = lines.filter(lambda line: line != "", name="kept")
    kept.to("kept")
    kept.flat_map(lambda line: line.split(" "), name="split").group_by(str, type=str, name="by_word").count(
        name="counts"
    ).to("counts")
    return job


def results(job: Job, lines: list[str]) -> tuple[list[object], dict[object, object]]:
    with TestDriver(job) as driver:
        for line in lines:
            driver.send("lines", line)
        driver.commit()
        return [value for _, value in driver.sent("kept")], dict(driver.sent("counts"))


@given(lines=st.lists(st.text("ab é", max_size=8), max_size=6))
def test_words_of_text_are_counted_alike_in_both_spellings(lines: list[str]) -> None:
    assert results(in_columns(), lines) == results(in_python(), lines)
