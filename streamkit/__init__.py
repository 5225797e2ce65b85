"""streamkit: MapReduce, windows and state rebuilds as operators over a Kafka-compatible log.

Reading order for a newcomer:
    README.md
    jobs/word_count.py
    docs/architecture.md
    streamkit/dsl/stream.py
    streamkit/graph/nodes.py
    streamkit/topology/compile.py
    streamkit/runtime/task.py
    streamkit/log/codec.py
"""

from streamkit.dsl import Grouped, Job, Processed, Stream, Table, WindowedGroup, agg
from streamkit.errors import (
    BrokerError,
    DefinitionError,
    LogError,
    ProcessingError,
    RecordError,
    StateError,
    StreamkitError,
    TaskError,
)
from streamkit.graph import AsyncCalls, EventTime, Hopping, Tumbling
from streamkit.graph.stores import Context, KeyValueStore, Store
from streamkit.records import Record, TopicPartition, Windowed

__all__ = [
    "AsyncCalls",
    "BrokerError",
    "Context",
    "DefinitionError",
    "EventTime",
    "Grouped",
    "Hopping",
    "Job",
    "KeyValueStore",
    "LogError",
    "Processed",
    "ProcessingError",
    "Record",
    "RecordError",
    "StateError",
    "Store",
    "Stream",
    "StreamkitError",
    "Table",
    "TaskError",
    "TopicPartition",
    "Tumbling",
    "Windowed",
    "WindowedGroup",
    "agg",
]
