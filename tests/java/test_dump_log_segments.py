"""Kafka's own `DumpLogSegments` reads our segments and indexes, and finds nothing wrong and nothing left over."""

import re
from pathlib import Path

import pytest
from kafka_tools import dump_log_segments, fetch_jars

from streamkit.log import ControlKind, ProducerStamp, control_batch, decode, encode
from streamkit.log.header import COMPRESSIONS
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.records import EncodedRecords
from streamkit.seams import SystemFileSystem

pytestmark = [pytest.mark.java, pytest.mark.slow]

BATCH_COUNT = 200
CODECS = [codec for codec in COMPRESSIONS if codec != "none"]
CONFIG = LogConfig(segment_bytes=20_000, index_interval_bytes=1_000)
BATCH_LINE = re.compile(
    r"^baseOffset: (?P<base>\d+) lastOffset: (?P<last>\d+) count: \d+ baseSequence: (?P<sequence>-?\d+) .*"
    r"isTransactional: (?P<transactional>true|false) isControl: (?P<control>true|false) .*"
    r"position: (?P<position>\d+) CreateTime: (?P<time>-?\d+) size: (?P<size>\d+) magic: 2 "
    r"compresscodec: (?P<codec>\w+) crc: (?P<crc>\d+) isvalid: (?P<valid>true|false)$",
    re.MULTILINE,
)
RECORD_LINE = re.compile(
    r"^\| offset: (?P<offset>\d+) CreateTime: (?P<time>-?\d+) keySize: (?P<key>-?\d+) valueSize: (?P<value>-?\d+) "
    r".*headerKeys: \[(?P<headers>.*?)\]",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain, transactional, compressed and control batches over several segments, timestamps out of order."""
    fetch_jars()
    directory = tmp_path_factory.mktemp("log") / "a-0"
    log = PartitionLog.open(SystemFileSystem(), str(directory), CONFIG)
    repetitive = EncodedRecords.to_append(
        timestamps_ms=[5 - row for row in range(60)],
        keys=[b"key %d" % row for row in range(60)],
        values=[b"v" * 1_500] * 60,
        headers=[[("first", b"1")]] * 60,
    )
    sequence = 0
    for number in range(BATCH_COUNT):
        count = 1 + number % 7
        stamp = ProducerStamp(7, 1, sequence, transactional=True)
        times_ms = [number * 37 % 500 + row - 3 for row in range(count)]
        records = EncodedRecords.to_append(
            timestamps_ms=times_ms,
            keys=[[None, b"", b"key"][row % 3] for row in range(count)],
            values=[[b"v" * 100, b"", None][(row + number) % 3] for row in range(count)],
            headers=[[("first", b"1"), ("second", None)][: row % 3] for row in range(count)],
        )
        log.append(encode(records, stamp=stamp))
        sequence += count
        if number % 10 == 9:
            kind = ControlKind.COMMIT if number % 20 == 9 else ControlKind.ABORT
            log.append([control_batch(kind, producer_id=7, producer_epoch=1, timestamp_ms=10**6 + number)])
        if number % 25 == 0:
            for codec in CODECS:
                log.append(encode(repetitive, compression=codec))
    log.sync(log.end_offset)
    log.close()
    return directory


def names(directory: Path, suffix: str) -> list[str]:
    found = sorted(path.name for path in directory.glob(f"*.{suffix}"))
    assert len(found) >= 3, "the log did not roll"
    return found


def test_kafka_reads_every_batch_of_our_segments_as_valid_with_no_byte_left_over(segments: Path) -> None:
    log = PartitionLog.open(SystemFileSystem(), str(segments), CONFIG)
    headers = list(log.scan(0))
    log.close()
    output, errors = dump_log_segments(segments, names(segments, "log"), "--deep-iteration")
    batches = list(BATCH_LINE.finditer(output))

    assert [(int(found["base"]), int(found["last"]), int(found["size"]), int(found["crc"])) for found in batches] == [
        (header.base_offset, header.last_offset, header.size_bytes, header.crc) for header in headers
    ]
    assert {found["valid"] for found in batches} == {"true"}
    assert sum(int(found["size"]) for found in batches) == sum(path.stat().st_size for path in segments.glob("*.log"))
    assert "invalid bytes" not in output + errors
    # Kafka counts each file from zero and says so; a gap within a file would read otherwise.
    gaps = re.findall(r"^ +(-?\d+) is followed by (\d+)$", errors, re.MULTILINE)
    assert sorted(gaps) == sorted(("-1", str(int(name[:20]))) for name in names(segments, "log")[1:])


def test_kafka_sees_transactions_compression_and_markers_as_we_wrote_them(segments: Path) -> None:
    output, _ = dump_log_segments(segments, names(segments, "log"), "--deep-iteration")
    batches = list(BATCH_LINE.finditer(output))
    codecs = [found["codec"] for found in batches]
    assert {codec: codecs.count(codec) for codec in CODECS} == dict.fromkeys(CODECS, BATCH_COUNT // 25)
    assert {found["transactional"] for found in batches if found["codec"] in CODECS} == {"false"}
    assert [found["control"] for found in batches].count("true") == BATCH_COUNT // 10
    markers = re.findall(r"endTxnMarker: (\w+) coordinatorEpoch: 0", output)
    assert markers == ["COMMIT", "ABORT"] * (BATCH_COUNT // 20)


def test_kafka_decodes_the_records_that_we_decode(segments: Path) -> None:
    log = PartitionLog.open(SystemFileSystem(), str(segments), CONFIG)
    records = decode(log.read(0, bytes_max=1 << 30))
    log.close()
    output, _ = dump_log_segments(segments, names(segments, "log"), "--print-data-log")
    theirs = [
        (int(found["offset"]), int(found["time"]), int(found["key"]), int(found["value"]), found["headers"])
        for found in RECORD_LINE.finditer(output)
    ]

    def size(data: bytes | None) -> int:
        return -1 if data is None else len(data)

    assert records.headers is not None
    assert theirs == [
        (offset, time_ms, size(key), size(value), ",".join(name for name, _ in of_record))
        for offset, time_ms, key, value, of_record in zip(
            records.offsets.tolist(),
            records.timestamps_ms.tolist(),
            records.keys,
            records.values,
            records.headers,
            strict=True,
        )
    ]


def test_kafka_verifies_our_indexes(segments: Path) -> None:
    indexes = names(segments, "index") + names(segments, "timeindex")
    for option in ("--index-sanity-check", "--verify-index-only"):
        output, errors = dump_log_segments(segments, indexes, option)
        assert errors == ""
        assert output.count("Dumping ") == len(indexes)
        assert output.count("passed sanity check") == (len(indexes) if "sanity" in option else 0)
    entries, _ = dump_log_segments(segments, indexes)
    assert entries.count("position: ") == sum(
        (segments / name).stat().st_size // 8 for name in names(segments, "index")
    )
    assert entries.count("timestamp: ") == sum(path.stat().st_size // 12 for path in segments.glob("*.timeindex"))


def test_kafka_would_have_told_us_of_damage(segments: Path, tmp_path: Path) -> None:
    for path in segments.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stem = names(tmp_path, "log")[0].removesuffix(".log")
    for suffix in ("index", "timeindex"):
        path = tmp_path / f"{stem}.{suffix}"
        entries = bytearray(path.read_bytes())
        entries[-5] += 1  # the last offset, and the last timestamp
        path.write_bytes(entries)
        _, errors = dump_log_segments(tmp_path, [path.name], "--verify-index-only")
        assert "ismatch" in errors, suffix
    with (tmp_path / f"{stem}.log").open("ab") as file:
        file.write(b"garbage")
    output, _ = dump_log_segments(tmp_path, [f"{stem}.log"], "--deep-iteration")
    assert "Found 7 invalid bytes at the end" in output
