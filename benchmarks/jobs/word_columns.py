"""The word count in the columnar spelling: no object is made of a line or a word."""

import msgspec
import polars as pl

from streamkit import Job


class Word(msgspec.Struct):
    """One word of a line."""

    word: str


job = Job("word_columns")
lines = job.stream("lines", value=str)


@lines.map_batches
def words(frame: pl.DataFrame) -> pl.DataFrame:
    """A line becomes its words."""
    return frame.select("__row__", word=pl.col("value").str.to_lowercase().str.split(" ")).explode("word")


counts = words.typed(Word).group_by("word", type=str, name="by_word").count(name="counts")
counts.to("word_counts")
