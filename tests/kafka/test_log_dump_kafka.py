"""`streamkit log dump` reads the segment files of a real Kafka where they lie, beside the broker that writes them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import done, streamkit
from copying import Row, encoded
from kafka_clients import console_producer, keyed_lines
from kafka_cluster import KafkaCluster
from kafka_subject import end_of, stable, until

from streamkit.broker import open_broker
from streamkit.records import TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LARGE_COUNT = 1_500
LINE = re.compile(
    r"^position (\d+) offsets (\d+)-(\d+) records (\d+) bytes (\d+) (\w+) .* compression (\w+) crc [0-9a-f]{8}$", re.M
)


class Dumped(NamedTuple):
    """One record batch as the dump shows it."""

    position: int
    first: int
    last: int
    records: int
    size_bytes: int
    kind: str
    codec: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a broker of its own, whose files are here, has on its disk."""
    directory = tmp_path_factory.mktemp("kafka")
    cluster = KafkaCluster(directory)
    try:
        broker = open_broker(cluster.url)
        for topic in ("plain", "rolled", *CODECS):
            broker.admin.create_topic(topic, 1, {"segment.bytes": "1048576"})
        keyed_lines(cluster.bootstrap, "plain", ["h:x\tkey|first", "h:x\tkey|NULL"])
        place = TopicPartition("plain", 0)
        for end, value in enumerate((b"committed", b"aborted")):
            task = broker.producer("task")
            task.begin()
            task.send(place, encoded([Row(1, None, value)]))
            until(lambda end=end: end_of(broker, place) == 3 + 2 * end)
            (task.abort if end else task.commit)()
            task.close()
            until(lambda: stable(broker, [place]))
        for codec in CODECS:
            console_producer(cluster.bootstrap, codec, ["same line " * 9] * 40, "--compression-codec", codec)
        console_producer(cluster.bootstrap, "rolled", ["x" * 1_500] * LARGE_COUNT)
        broker.close()
        yield directory / "broker-1" / "data"
    finally:
        cluster.close()


def dumped(segment: Path, *options: str) -> tuple[list[Dumped], str]:
    """Dump a segment; check that its batches lie side by side, without a byte left over."""
    printed = done("log", "dump", str(segment), *options, cwd=segment.parent)
    batches = [Dumped(*(int(part) if part.isdecimal() else part for part in found)) for found in LINE.findall(printed)]
    assert [one.position for one in batches] == [sum(b.size_bytes for b in batches[:i]) for i in range(len(batches))]
    size_bytes, count = sum(one.size_bytes for one in batches), sum(one.records for one in batches)
    assert printed.splitlines()[-1] == f"{segment}: {size_bytes:,} bytes, {count:,} records, all valid"
    if not segment.parent.name.startswith("__"):  # that of Kafka's quorum grows twice a second
        assert size_bytes == segment.stat().st_size
    return batches, printed


def test_records_markers_and_nulls_are_shown(data: Path) -> None:
    batches, printed = dumped(data / "plain-0" / f"{0:020}.log", "--records")
    assert [(one.first, one.last, one.kind) for one in batches if one.kind != "plain"] == [
        (2, 2, "transactional"),
        (3, 3, "commit"),
        (4, 4, "transactional"),
        (5, 5, "abort"),
    ]
    shown = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert shown == [
        "0 key key value first",
        "1 key key value null",
        "2 key null value committed",
        "4 key null value aborted",
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_batches_of_every_compression_are_checked(codec: str, data: Path) -> None:
    batches, _ = dumped(data / f"{codec}-0" / f"{0:020}.log")
    assert {one.codec for one in batches} == {codec}
    assert sum(one.records for one in batches) == 40


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_compressed_batches_are_shown(codec: str, data: Path) -> None:
    _, printed = dumped(data / f"{codec}-0" / f"{0:020}.log", "--records")
    assert printed.count("  key null value " + "same line " * 9) == 0
    assert printed.count(" key null value " + "same line " * 9) == 40


def test_segments_go_on_where_the_one_before_ended(data: Path) -> None:
    segments = sorted((data / "rolled-0").glob("*.log"))
    assert len(segments) >= 2
    next_offset = 0
    for segment in segments:
        batches, _ = dumped(segment)
        assert int(segment.stem) == batches[0].first == next_offset
        next_offset = batches[-1].last + 1
    assert next_offset == LARGE_COUNT


def test_kafkas_own_topics_are_read_too(data: Path) -> None:
    filled = [segment for segment in sorted(data.glob("__*/*.log")) if segment.stat().st_size]
    topics = {segment.parent.name.rpartition("-")[0] for segment in filled}
    assert topics == {"__cluster_metadata", "__transaction_state"}
    kinds = {one.kind for segment in filled for one in dumped(segment)[0]}
    assert kinds == {"plain", "control"}


def test_damage_in_a_segment_of_kafka_is_named_by_its_byte(data: Path, tmp_path: Path) -> None:
    content = bytearray((data / "gzip-0" / f"{0:020}.log").read_bytes())
    content[-1] ^= 1
    copy = tmp_path / f"{0:020}.log"
    copy.write_bytes(content)
    ended = streamkit("log", "dump", str(copy), cwd=tmp_path)
    assert ended.returncode == 1
    assert "CRC" in ended.stderr.decode()
    assert f"{copy} byte 0" in ended.stderr.decode()
