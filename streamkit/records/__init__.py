"""The values that travel: records, batches of them, and where they lie."""

from streamkit.records.batch import NEVER_MS, Batch, Column, Decoder, Later, Origin, RowError
from streamkit.records.encoded import EncodedRecords, Header
from streamkit.records.record import Record, TopicPartition, Windowed

__all__ = [
    "NEVER_MS",
    "Batch",
    "Column",
    "Decoder",
    "EncodedRecords",
    "Header",
    "Later",
    "Origin",
    "Record",
    "RowError",
    "TopicPartition",
    "Windowed",
]
