"""The hot auctions as a Polars batch over the file: what a person would write without streamkit."""

import sys

import polars as pl

result = (
    pl.scan_ndjson(sys.argv[1])
    .group_by("auction", pl.col("ts") // 10_000)
    .agg(bids=pl.len(), best=pl.col("price").max())
    .collect()
)
print(result.height, result["bids"].sum(), result["best"].sum())
