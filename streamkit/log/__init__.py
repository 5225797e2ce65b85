"""Record batches v2 and the segmented log that holds them, in Kafka's formats byte for byte."""

from streamkit.log.codec import (
    NO_PRODUCER,
    ControlKind,
    DecodedRecords,
    ProducerStamp,
    control_batch,
    control_kind,
    decode,
    decode_parts,
    encode,
)
from streamkit.log.header import BatchHeader, Compression, check, parse_header, place

__all__ = [
    "NO_PRODUCER",
    "BatchHeader",
    "Compression",
    "ControlKind",
    "DecodedRecords",
    "ProducerStamp",
    "check",
    "control_batch",
    "control_kind",
    "decode",
    "decode_parts",
    "encode",
    "parse_header",
    "place",
]
