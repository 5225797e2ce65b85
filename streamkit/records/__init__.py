"""The values that travel: records, batches of them, and where they lie."""

from streamkit.records.batch import Batch, Column, Decoder, RowError
from streamkit.records.encoded import EncodedRecords, Header
from streamkit.records.record import Record, TopicPartition, Windowed

__all__ = [
    "Batch",
    "Column",
    "Decoder",
    "EncodedRecords",
    "Header",
    "Record",
    "RowError",
    "TopicPartition",
    "Windowed",
]
