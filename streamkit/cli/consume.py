"""`streamkit consume`: the records of a topic, printed."""

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import click
import orjson

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST, Broker, OffsetSpec
from streamkit.cli.broker import broker_option, described, opened
from streamkit.cli.moments import moment_ms
from streamkit.errors import OffsetOutOfRangeError
from streamkit.log import DecodedRecords, decode_parts
from streamkit.records import TopicPartition

__all__ = ["consume"]

_FETCH_BYTES: Final = 1024 * 1024
_WAIT_MS: Final = 500.0


def _begin(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[bool, int]:
    """Return whether `--from` gave an offset, and the number: the offset, or a spec for `list_offsets`."""
    if text in ("earliest", "latest"):
        return False, EARLIEST if text == "earliest" else LATEST
    if text.isdecimal():
        return True, int(text)
    return False, moment_ms(text, "earliest, latest, an offset nor")


@click.command()
@click.argument("topic")
@click.option(
    "--from",
    "begin",
    callback=_begin,
    default="earliest",
    show_default=True,
    metavar="earliest|latest|OFFSET|TIME",
    help="Where to begin in each partition; a time is ISO 8601, UTC unless it says otherwise.",
)
@click.option("--until-end", is_flag=True, help="Stop at what is the end now, instead of waiting for more.")
@click.option("--read-uncommitted", is_flag=True, help="Show records of open and aborted transactions too.")
@click.option("--json", "as_json", is_flag=True, help="Print each record as a JSON object, with its place.")
@broker_option
def consume(
    topic: str, begin: tuple[bool, int], until_end: bool, read_uncommitted: bool, as_json: bool, url: str
) -> None:
    """Print the records of TOPIC: a value a line, after its key and a tab if it has one."""
    out = sys.stdout.buffer
    with opened(url) as broker:
        places = _places(broker, topic)
        positions = _starts(broker, places, *begin)
        spec = LATEST if read_uncommitted else LAST_STABLE
        ends = broker.admin.list_offsets(dict.fromkeys(places, spec)) if until_end else {}
        fetcher = broker.fetcher("read_uncommitted" if read_uncommitted else "read_committed")
        try:
            while wanted := {place: at for place, at in positions.items() if not until_end or at < ends[place]}:
                for part in fetcher.fetch(wanted, wait_ms=_WAIT_MS, bytes_max=_FETCH_BYTES):
                    place = part.topic_partition
                    for records in decode_parts(part.record_batches, from_offset=positions[place]):
                        _print(out, place, records.below(ends[place]) if until_end else records, as_json=as_json)
                    positions[place] = part.next_offset
                out.flush()
        except KeyboardInterrupt:
            # How a consumer that waits for more is meant to end.
            if until_end:
                raise
        finally:
            fetcher.close()


def _places(broker: Broker, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, index) for index in range(described(broker, topic).partition_count)]


def _starts(
    broker: Broker, places: list[TopicPartition], is_offset: bool, begin: OffsetSpec
) -> dict[TopicPartition, int]:
    if not is_offset:
        return dict(broker.admin.list_offsets(dict.fromkeys(places, begin)))
    first, last = (broker.admin.list_offsets(dict.fromkeys(places, spec)) for spec in (EARLIEST, LATEST))
    if all(not first[place] <= begin <= last[place] for place in places):
        raise OffsetOutOfRangeError(
            f"offset {begin} is out of range",
            detail=", ".join(f"{place} has {first[place]} to {last[place]}" for place in places),
            hint="choose an offset that the topic still has, or --from earliest",
        )
    return {place: min(max(begin, first[place]), last[place]) for place in places}


def _print(out: BinaryIO, place: TopicPartition, records: DecodedRecords, *, as_json: bool) -> None:
    rows = zip(records.offsets.tolist(), records.keys, records.values, records.timestamps_ms.tolist(), strict=True)
    if as_json:
        out.writelines(orjson.dumps(_as_object(place, *row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    else:
        out.writelines(
            (b"" if key is None else key + b"\t") + (b"null" if value is None else value) + b"\n"
            for _, key, value, _ in rows
        )


def _as_object(
    place: TopicPartition, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int
) -> Mapping[str, Any]:
    return {
        "topic": place.topic,
        "partition": place.partition,
        "offset": offset,
        "key": None if key is None else key.decode("utf-8", "backslashreplace"),
        "value": None if value is None else _parsed(value),
        "timestamp_ms": timestamp_ms,
    }


def _parsed(value: bytes) -> Any:
    """Return JSON as it stands, so that no digit changes, and everything else as text."""
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "backslashreplace")
    return parsed if b"\n" in value or b"\r" in value else orjson.Fragment(value)
