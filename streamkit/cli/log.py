"""`streamkit log`: what the files of a log hold."""

from pathlib import PurePath

import click

from streamkit.log import BatchHeader, control_kind, decode, parse_header
from streamkit.log.segment import Segment
from streamkit.seams import SystemFileSystem

__all__ = ["log"]

_READ_BYTES = 4 * 1024 * 1024


@click.group()
def log() -> None:
    """Look into the files of a log."""


@log.command()
@click.argument("segment", type=click.Path(exists=True, dir_okay=False))
@click.option("--records", is_flag=True, help="Print the records of each batch too.")
def dump(segment: str, records: bool) -> None:
    """Print the record batches of SEGMENT, a `<20 digits>.log` file of ours or of Kafka's, and check them.

    The file is only read, so this works beside a running worker. Damage is an error that names the byte.
    """
    path = PurePath(segment)
    if path.suffix != ".log" or not path.stem.isdecimal():
        raise click.BadParameter(f"{path.name!r} is not named as a segment is, such as 00000000000000000000.log")
    opened = Segment(SystemFileSystem(), str(path.parent), int(path.stem), index_interval_bytes=4096)
    try:
        count = position = 0
        while position < opened.size_bytes:
            for at, batch in opened.batches(position, bytes_max=_READ_BYTES):
                header = _shown(at, batch, records=records)
                count, position = count + header.record_count, at + header.size_bytes
    finally:
        opened.close()
    click.echo(f"{segment}: {position:,} bytes, {count:,} records, all valid")


def _shown(position: int, batch: bytes, *, records: bool) -> BatchHeader:
    header = parse_header(batch)
    click.echo(
        f"position {position} offsets {header.base_offset}-{header.last_offset} records {header.record_count} "
        f"bytes {header.size_bytes} {_kind(header, batch)} producer {header.producer_id} epoch {header.producer_epoch} "
        f"sequence {header.base_sequence} timestamps {header.first_timestamp_ms}-{header.max_timestamp_ms} "
        f"compression {header.compression} crc {header.crc:08x}"
    )
    if records and not header.control:
        rows = decode([batch])
        for offset, key, value in zip(rows.offsets.tolist(), rows.keys, rows.values, strict=True):
            click.echo(f"  {offset} key {_text(key)} value {_text(value)}")
    return header


def _kind(header: BatchHeader, batch: bytes) -> str:
    """Return what sort of batch it is; those of Kafka's own quorum are control batches without a transaction."""
    if header.control:
        return control_kind(batch) if header.transactional else "control"
    return "transactional" if header.transactional else "plain"


def _text(data: bytes | None) -> str:
    return "null" if data is None else data.decode("utf-8", "backslashreplace")
