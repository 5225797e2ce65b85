"""Drawn records as files, cut anywhere and read in any pieces, give the results that they give as topics."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import EventTime, Job, Tumbling, agg
from streamkit.broker import Broker, open_broker
from streamkit.files import FileRun, FileRunRequest, input_bindings, output_bindings
from streamkit.log import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.keys_check import topics_read_by_key
from streamkit.seams import MemoryFileSystem, SeededRng, SystemClock
from streamkit.topology import Topology, compile_graph


class Sale(msgspec.Struct):
    shop: str
    at: int
    price: float


def drawn_job(*, windowed: bool, columns: bool) -> Topology:
    job = Job("drawn")
    # Nothing is late by an hour, so that the result does not depend on how a file is cut.
    time = EventTime("at", out_of_orderness=timedelta(hours=1))
    sales = job.stream("sales", value=Sale, timestamp=time)
    kept = sales.filter(pl.col("price") >= 0) if columns else sales.filter(lambda sale: sale.price >= 0, name="kept")
    by_shop = kept.group_by("shop", type=str, name="by_shop")
    sums = {"sold": agg.count(), "total": agg.sum("price"), "best": agg.max("price")}
    if windowed:
        window = by_shop.window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final")
        window.agg(sums, name="sums").to("sums")
    else:
        by_shop.agg(sums, name="sums").to("sums")
    return compile_graph(job.build())


def worked(topology: Topology, broker: Broker, fetch_bytes: int) -> None:
    options = RunOptions(bounded=True, fetch_bytes_max=fetch_bytes, commit_bytes_max=fetch_bytes * 3)
    summary = Worker(topology, broker, options=options, fs=MemoryFileSystem(), clock=SystemClock()).run(
        threading.Event()
    )
    assert summary.finished


def from_files(topology: Topology, paths: Sequence[Path], output: Path, fetch_bytes: int) -> list[dict[str, Any]]:
    request = FileRunRequest(
        topology=topology,
        inputs=input_bindings([f"sales={path}" for path in paths], ["sales"]),
        outputs=output_bindings([f"sums={output}"], ["sums"]),
        whole=tuple(topics_read_by_key(topology)),
        overwrite=True,
        root="runs",
    )
    run, log = FileRun(request, MemoryFileSystem(), SeededRng(1)), open_broker("memory://")
    worked(topology, run.broker(log), fetch_bytes)
    run.write_outputs()
    log.close()
    run.publish()
    run.close()
    return pl.read_parquet(output).to_dicts()


def from_topic(topology: Topology, sales: Sequence[Sale]) -> list[dict[str, Any]]:
    """Return what the records give as a topic of one partition, in the form of a file."""
    broker = open_broker("memory://")
    broker.admin.create_topic("sales", 1)
    if sales:
        records = EncodedRecords.to_append(
            timestamps_ms=[0] * len(sales), keys=[None] * len(sales), values=list(map(msgspec.json.encode, sales))
        )
        producer = broker.producer()
        producer.send(TopicPartition("sales", 0), records)
        producer.flush()
    worked(topology, broker, 1 << 20)
    rows: dict[object, dict[str, Any]] = {}
    fetcher = broker.fetcher()
    for partition in range(broker.admin.describe_topics()["sums"].partition_count):
        place = TopicPartition("sums", partition)
        for part in fetcher.fetch({place: 0}, wait_ms=0, bytes_max=1 << 24):
            records_out = decoded(part.record_batches)
            for key, value in records_out:
                row = {"key": key, **orjson.loads(value)}
                rows[(key, row.get("window_start"))] = row
    broker.close()
    return list(rows.values())


def decoded(batches: Sequence[bytes]) -> list[tuple[str, bytes]]:
    records = decode(batches)
    return [((key or b"").decode(), value or b"") for key, value in zip(records.keys, records.values, strict=True)]


SALES = st.lists(
    st.builds(
        Sale,
        shop=st.sampled_from(["a", "b", "ä,\"'"]),
        at=st.integers(0, 100_000),
        price=st.floats(-10, 1e6, allow_nan=False).map(lambda price: round(price, 2)),
    ),
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=max(25, settings().max_examples // 5))
@given(
    sales=SALES,
    windowed=st.booleans(),
    columns=st.booleans(),
    cut=st.integers(0, 40),
    form=st.sampled_from(["jsonl", "csv", "parquet"]),
    part_bytes=st.sampled_from([60, 200, 1 << 20]),
    fetch_bytes=st.sampled_from([1, 100, 1 << 20]),
)
def test_files_give_what_a_topic_gives(  # each is drawn
    sales: list[Sale],
    windowed: bool,
    columns: bool,
    cut: int,
    form: str,
    part_bytes: int,
    fetch_bytes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("drawn")
    paths = []
    for number, some in enumerate((sales[:cut], sales[cut:])):
        path = directory / f"{number}.{form}"
        frame = pl.DataFrame(
            [msgspec.structs.asdict(sale) for sale in some],
            schema={"shop": pl.String, "at": pl.Int64, "price": pl.Float64},
        )
        match form:
            case "csv":
                frame.write_csv(path)
            case "parquet":
                frame.write_parquet(path)
            case _:
                path.write_bytes(b"".join(msgspec.json.encode(sale) + b"\n" for sale in some))
        paths.append(path)
    topology = drawn_job(windowed=windowed, columns=columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
        patch.setattr("streamkit.files.plan.PART_BYTES", part_bytes)
        rows = from_files(topology, paths, directory / "out.parquet", fetch_bytes)
    kept = [{name: value for name, value in row.items() if name != "timestamp_ms"} for row in rows]
    expected = from_topic(topology, sales)
    assert sorted(map(orjson.dumps, kept)) == sorted(map(orjson.dumps, expected))


def test_a_stream_that_is_grouped_by_its_own_key_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
    monkeypatch.setattr("streamkit.files.plan.PART_BYTES", 100)
    job = Job("keyed")
    sales = job.stream("sales", key=str, value=Sale, timestamp=EventTime("at", out_of_orderness=timedelta(hours=1)))
    sales.group_by_key().agg({"sold": agg.count()}, name="sums").to("sums")
    rows = [{"key": f"k{n % 3}", "shop": "a", "at": n, "price": 1.0} for n in range(30)]
    paths = [tmp_path / "a.jsonl", tmp_path / "b.csv"]
    paths[0].write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows[:15]))
    pl.DataFrame(rows[15:]).write_csv(paths[1])
    found = from_files(compile_graph(job.build()), paths, tmp_path / "out.parquet", 50)
    assert {row["key"]: row["sold"] for row in found} == {"k0": 10, "k1": 10, "k2": 10}
