"""The values that travel: records, batches of them, and where they lie."""

from streamkit.records.batch import Batch, Column, Decoder, Later, Origin, RowError
from streamkit.records.encoded import EncodedRecords, Header
from streamkit.records.lines import Lines
from streamkit.records.placed import PlacedRecords, RecordColumns
from streamkit.records.record import NEVER_MS, Record, TopicPartition, Windowed

__all__ = [
    "NEVER_MS",
    "Batch",
    "Column",
    "Decoder",
    "EncodedRecords",
    "Header",
    "Later",
    "Lines",
    "Origin",
    "PlacedRecords",
    "Record",
    "RecordColumns",
    "RowError",
    "TopicPartition",
    "Windowed",
]
