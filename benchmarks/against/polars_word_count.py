"""The word count as a Polars batch over the file: what a person would write without streamkit."""

import sys

import polars as pl

result = (
    pl.scan_csv(sys.argv[1], has_header=False, separator="\n", quote_char=None, new_columns=["line"])
    .select(word=pl.col("line").str.to_lowercase().str.split(" "))
    .explode("word")
    .group_by("word")
    .len()
    .collect()
)
counts = result["len"].cast(pl.Int64)
print(result.height, counts.sum(), (counts * counts).sum())
