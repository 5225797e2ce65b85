"""What `describe` says of the sample jobs, as JSON and as text."""

import json
import zlib
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from jobs import hot_auctions, sensor_means, word_count
from streamkit import EventTime, Hopping, Job, Tumbling, agg
from streamkit.topology import compile_graph, describe


class Trade(msgspec.Struct):
    symbol: str
    price: float
    size: int
    at: int


def described(job: Job) -> dict[str, Any]:
    made = describe(compile_graph(job.build())).to_json()
    assert json.loads(json.dumps(made)) == made, "it is plain JSON"
    return made


def nodes_of(job: Job) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for sub in described(job)["sub_topologies"] for node in sub["nodes"]}


def text_of(job: Job) -> str:
    return describe(compile_graph(job.build())).to_text()


def test_word_count_reads_as_map_shuffle_reduce() -> None:
    first, second = described(word_count.job)["sub_topologies"]
    assert [(node["kind"], node["name"], node["spelling"]) for node in first["nodes"]] == [
        ("source", "lines", None),
        ("flat_map", "words", "python"),
        ("key_by", "by_word", "python"),
    ]
    assert first["chains"] == [["words", "by_word"]]
    assert first["combines"] == ["counts"]
    assert [(node["kind"], node["name"]) for node in second["nodes"]] == [
        ("aggregate", "counts"),
        ("sink", "to_word_counts_1"),
    ]
    assert second["stores"] == [
        {
            "name": "counts",
            "index": zlib.crc32(b"counts") % 65_535,
            "changelog_topic": "word_count-counts-changelog",
            "windowed": False,
        }
    ]
    assert second["sink_topics"] == ["word_counts"]


def test_the_shuffle_names_its_topic_its_shards_and_both_sides() -> None:
    assert described(word_count.job)["repartitions"] == [
        {
            "name": "by_word",
            "topic": "word_count-by_word-repartition",
            "shards": 8,
            "upstream": [0],
            "downstream": 1,
            "aggregations": ["counts"],
            "whole": False,
            "ordered": False,
            "facts": False,
        }
    ]


def test_the_text_shows_map_combine_shuffle_and_reduce_in_this_order() -> None:
    text = text_of(word_count.job)
    said = [
        "Map: a line",
        "Shuffle: the word",
        "combine  ",
        "══▶ word_count-by_word-repartition, 8 shards",
        "Reduce: one",
    ]
    places = [text.index(one) for one in said]
    assert places == sorted(places)
    assert "combined in sub-topology 0" in text


def test_a_built_in_aggregate_is_spelled_in_columns_and_combined() -> None:
    nodes = nodes_of(hot_auctions.job)
    assert nodes["hot"]["kind"] == "agg"
    assert nodes["hot"]["spelling"] == "columns"
    assert nodes["hot"]["details"]["columns"] == ["bids = count()", "best = max(price)"]
    assert nodes["hot"]["details"]["combined_in"] == [0]
    assert nodes["window_1"]["details"] == {"tumbling_ms": 10_000, "grace_ms": 0, "emit": "final"}
    assert nodes["by_auction"]["details"] == {"column": "auction", "key": "int"}
    assert nodes["bids"]["details"]["timestamp"] == "ts"


def test_a_hopping_window_says_its_size_and_its_advance() -> None:
    job = Job("hops")
    group = job.stream("rows", key=str, timestamp="ts").group_by_key()
    hops = Hopping(timedelta(minutes=1), advance=timedelta(seconds=10), grace=timedelta(0))
    group.window(hops).count(name="counts").to("out")
    assert "hopping 1 min · advance 10 s · grace 0 s · emit final" in text_of(job)


def test_a_built_in_aggregate_says_all_that_its_results_depend_on() -> None:
    job = Job("all")
    how = {
        "sd": agg.std("price"),
        "all": agg.collect("size", limit=9),
        "top": agg.top_k("size", 3),
        "kinds": agg.distinct("symbol"),
        "about": agg.distinct("symbol", approx=True),
        "dearest": agg.arg_max("symbol", by="price"),
    }
    trades = job.stream("trades", value=Trade, timestamp="at")
    trades.group_by("symbol", type=str, name="by_symbol").agg(how, name="stats").to("out")
    assert nodes_of(job)["stats"]["details"]["columns"] == [
        "sd = std(price, ddof=1)",
        "all = collect(size, limit=9)",
        "top = top_k(size, k=3)",
        "kinds = distinct(symbol, limit=10000)",
        "about = distinct(symbol, approx=True)",
        "dearest = arg_max(symbol, by=price)",
    ]


def test_an_aggregation_without_a_shuffle_says_that_nothing_is_combined() -> None:
    nodes = nodes_of(sensor_means.job)
    assert nodes["mean_by_minute"]["details"]["combined_in"] == []
    assert nodes["mean_by_minute"]["details"]["merge"] == "none"
    text = text_of(sensor_means.job)
    assert "no combiner, as there is no shuffle" in text
    assert "tumbling 1 min · grace 10 s · emit final" in text
    assert "no shuffles, 1 store" in text


def test_a_node_that_does_not_follow_the_line_above_says_where_it_reads() -> None:
    lines = [line.split() for line in text_of(sensor_means.job).splitlines()]
    assert ["late", "window_1_late", "from", "window_1"] in lines


def everything() -> Job:
    """Return a job with every kind of node."""
    job = Job("everything")
    trades = job.stream("trades", value=Trade, timestamp=EventTime("at", out_of_orderness=timedelta(milliseconds=1500)))
    others = job.stream("others", key=str, value=Trade, timestamp=lambda trade: trade.at).key_by(
        "symbol", name="rekeyed"
    )
    big, small = trades.branch(pl.col("size") > 100)
    small.peek(print).to("small")
    slim = big.with_columns((pl.col("price") * 2).alias("double")).select("symbol", "double")
    slim.map_batches(lambda frame: frame, name="a_name_longer_than_its_column_is_wide").to("slim")
    keyed = trades.key_by(lambda trade: trade.symbol, name="by_symbol", shards=1)
    keyed.map(lambda trade: trade.size, name="sizes").group_by_key().reduce(max, name="biggest").to("biggest")
    hourly = keyed.group_by_key().window(Tumbling(timedelta(hours=1), grace=timedelta(0)))
    totals = hourly.agg({"emit": agg.count(), "total": agg.sum("size")}, name="totals")
    totals.to_stream().filter(pl.col("total") > 0).group_by(pl.col("emit"), name="by_emit").count(name="counts")
    others.merge(trades.key_by("symbol", name="rekeyed_too").peek(print, name="same")).to("merged")
    return job


def test_every_kind_of_node_has_a_word_and_fits_in_a_hundred_columns() -> None:
    kinds = {node["kind"] for node in nodes_of(everything()).values()}
    assert kinds == {
        *(
            "source",
            "filter",
            "peek",
            "with_columns",
            "select",
            "map_batches",
            "key_by",
            "map",
            "reduce",
            "window",
            "agg",
        ),
        *("to_stream", "count", "merge", "sink"),
    }
    for line in text_of(everything()).splitlines():
        assert len(line) <= 100, line


def test_details_say_what_a_reader_of_the_job_would_ask() -> None:
    nodes = nodes_of(everything())
    assert nodes["trades"]["details"]["out_of_orderness_ms"] == 1500
    assert nodes["others"]["details"]["timestamp"] == "a function"
    assert nodes["others"]["details"]["key"] == "str"
    assert nodes["rekeyed"]["details"]["shuffle"] == "none", "nothing behind it keeps state"
    assert nodes["select_1"]["details"] == {"columns": ["symbol", "double"]}
    assert nodes["branch_1"]["details"].keys() == {"only"}
    assert nodes["branch_1_else"]["details"].keys() == {"not"}
    assert nodes["biggest"]["details"]["order"] == "any"
    assert nodes["totals"]["details"]["columns"][0] == "emit = count()", "a column may bear any name"
    assert nodes["totals"]["details"]["emit"] == "final"


def test_a_fused_chain_is_drawn_in_one_piece_though_another_node_was_defined_in_between() -> None:
    job = Job("interleaved")
    lines = job.stream("lines", value=str)
    left, right = lines.map(str.upper, name="left_1"), lines.map(str.lower, name="right_1")
    left = left.filter(str.isalpha, name="left_2")
    right.filter(str.isalpha, name="right_2").to("right")
    left.map(str.strip, name="left_3").to("left")
    drawn = [
        line[2:].split()[::2][:2] for line in text_of(job).splitlines() if line.startswith("  ") and line[2] in "┌│└"
    ]
    assert drawn == [["┌", "left_1"], ["│", "left_2"], ["└", "left_3"], ["┌", "right_1"], ["└", "right_2"]]


def test_only_the_first_line_of_a_docstring_is_shown() -> None:
    job = Job("documented")

    def shout(line: str) -> str:
        """Make it loud.

        And more about it.
        """
        return line.upper()

    job.stream("lines", value=str).map(shout).to("loud")
    assert nodes_of(job)["shout"]["doc"] == "Make it loud."
    assert "And more" not in text_of(job)


def test_a_task_that_reads_many_topics_names_them_over_several_lines() -> None:
    job = Job("readings")
    first, *others = [job.stream(f"readings_of_station_{number}", value=int) for number in range(5)]
    first.merge(*others).to("all")
    heading, *more = text_of(job).splitlines()[2:4]
    assert heading.startswith("Sub-topology 0: one task a partition of readings_of_station_0 and ")
    assert all(line.startswith("    readings_of_station_") for line in more)
    assert " ".join([heading, *more]).count("readings_of_station_") == 5
    assert max(len(heading), *map(len, more)) <= 100


def test_a_source_says_what_is_done_with_its_bad_records_unless_they_stop_the_run() -> None:
    job = Job("careful", on_error="skip")
    for topic, policy in (("a", None), ("b", "dead_letter"), ("c", "fail")):
        job.stream(topic, value=str, on_error=policy).to("out")  # type: ignore[arg-type]  # one of its words
    nodes = nodes_of(job)
    assert [nodes[topic]["details"].get("on_error") for topic in "abc"] == ["skip", "dead_letter", None]
