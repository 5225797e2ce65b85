"""Every exception of streamkit, cut by what the runtime does next.

::

    StreamkitError
    ├── DefinitionError          refuse to start
    │   ├── DuplicateNameError   UnnamedStateError   FrozenJobError
    │   ├── TopologyError        ConfigError
    ├── RecordError              the record policy (fail, skip, dead_letter)
    │   ├── DeserializationError   SerializationError   TimestampError
    │   └── ProcessingError
    │       └── RowWiseError   PunctuationError
    ├── LogError                 stop the worker; CorruptBatchError in a changelog: restore
    │   ├── CorruptBatchError    OffsetOutOfRangeError   SegmentFullError
    │   ├── UnknownTopicError    RecordTooLargeError     LogLockedError
    ├── StateError
    │   ├── StoreClosedError     UnknownStoreError       DigestMismatchError
    │   ├── StoreLockedError
    │   │   └── StoreInUseError  try again for a minute
    │   └── StoreDamagedError    set aside and restore
    ├── FileError                stop the worker
    ├── BrokerError              retry within a deadline if retriable
    │   ├── BrokerUnavailableError   ProducerFencedError   CommitFailedError
    └── TaskError
        ├── TaskCorruptedError   set aside and restore
        ├── TaskMigratedError    close dirty, commit nothing
        └── RunReplacedError     stop the worker

A message has three parts: the primary (lower case, no full stop), a detail, and a hint that says what to do.
"""

from enum import Enum
from typing import ClassVar

__all__ = [
    "Answer",
    "BrokerError",
    "BrokerUnavailableError",
    "CommitFailedError",
    "ConfigError",
    "CorruptBatchError",
    "DefinitionError",
    "DeserializationError",
    "DigestMismatchError",
    "DuplicateNameError",
    "FileError",
    "FrozenJobError",
    "LogError",
    "LogLockedError",
    "OffsetOutOfRangeError",
    "ProcessingError",
    "ProducerFencedError",
    "PunctuationError",
    "RecordError",
    "RecordTooLargeError",
    "RowWiseError",
    "RunReplacedError",
    "SegmentFullError",
    "SerializationError",
    "StateError",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreInUseError",
    "StoreLockedError",
    "StreamkitError",
    "TaskCorruptedError",
    "TaskError",
    "TaskMigratedError",
    "TimestampError",
    "TopologyError",
    "UnknownStoreError",
    "UnknownTopicError",
    "UnnamedStateError",
]

PREVIEW_BYTES = 200
"""How much of a bad record an error message shows."""


def _preview(data: bytes) -> str:
    """Return the first bytes of what was bad, as an error message shows them."""
    more = " …" if len(data) > PREVIEW_BYTES else ""
    return data[:PREVIEW_BYTES].decode("utf-8", "backslashreplace") + more


class Answer(Enum):
    """What the runtime does with an error; the tree is cut along this line."""

    REFUSE = "refuse to start"
    POLICY = "apply the record policy"
    RETRY = "retry within a deadline"
    RESTORE = "set the directory aside and restore"
    CLOSE_DIRTY = "close dirty, commit nothing"
    STOP = "stop the worker"


class StreamkitError(Exception):
    """Raised when streamkit itself finds something wrong.

    Catch this to catch every error of the library.
    """

    answer: ClassVar[Answer] = Answer.STOP

    def __init__(self, primary: str, *, detail: str = "", hint: str = "") -> None:
        """Keep the three parts apart; `str()` joins them with line breaks."""
        super().__init__(primary)
        self.primary = primary
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        """Return primary, detail and hint, one a line."""
        lines = [self.primary]
        if self.detail:
            lines.append(f"  {self.detail}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class DefinitionError(StreamkitError):
    """Raised when the job is wrong, before any record is read.

    Mend the job module.
    """

    answer = Answer.REFUSE


class DuplicateNameError(DefinitionError):
    """Raised when two nodes of one job bear the same name.

    Rename one, or pass `name=`.
    """


class UnnamedStateError(DefinitionError):
    """Raised when a node that owns state or a topic has no durable name.

    Use a named function, or pass `name=`.
    """


class FrozenJobError(DefinitionError):
    """Raised when a node is added to a job that was built.

    Add all nodes before `build()`.
    """


class TopologyError(DefinitionError):
    """Raised when the graph cannot be cut into tasks.

    The message names the nodes, topics and counts, and the fix.
    """


class ConfigError(DefinitionError):
    """Raised when a setting is unknown or out of its range.

    The message names the setting and what it takes.
    """


class RecordError(StreamkitError):
    """Raised when one record is bad; carries its place.

    The record policy decides: fail, skip or dead letter. `exact` says that it is this record, not one of several that
    were looked at together.
    """

    answer = Answer.POLICY
    exact = True

    def __init__(  # noqa: PLR0913  # a record's place is four values, and its first bytes show what was wrong
        self,
        primary: str,
        *,
        topic: str = "",
        partition: int = -1,
        offset: int = -1,
        node: str = "",
        data: bytes | None = None,
        hint: str = "",
    ) -> None:
        """Keep the place of the record and the first bytes of what was bad."""
        self.topic, self.partition, self.offset, self.node = topic, partition, offset, node
        self.data = data
        place = f"record {topic}-{partition} offset {offset}" if topic else ""
        parts = [place, f"node {node}" if node else ""]
        if data is not None:
            parts.append(_preview(data))
        super().__init__(primary, detail=", ".join(part for part in parts if part), hint=hint)


class DeserializationError(RecordError):
    """Raised when bytes do not decode as the declared type.

    Mend the producer, or the declared type.
    """


class SerializationError(RecordError):
    """Raised when a value cannot be encoded as its type.

    Mend the function that returned it.
    """


class TimestampError(RecordError):
    """Raised when a record's timestamp is missing or is no number.

    Mend the producer, or `timestamp=`.
    """


class ProcessingError(RecordError):
    """Raised when the user's function raised; `__cause__` is the original.

    Mend the function; the record stays uncommitted.
    """


class RowWiseError(ProcessingError):
    """Raised when a node gives other rows for a batch than for its two halves.

    Make the expression or function row-wise: f(a ++ b) = f(a) ++ f(b).
    """


class PunctuationError(ProcessingError):
    """Raised when a punctuation raised, and names the record before which it was called; `__cause__` is the original.

    Mend the function. The record is not at fault, so no policy leaves it out.
    """


class LogError(StreamkitError):
    """Raised when the log cannot do what was asked.

    The message names the topic or file.
    """


class CorruptBatchError(LogError):
    """Raised when a record batch's length, magic or CRC is wrong; names file and byte.

    Nothing is dropped: repair or restore the file.
    """

    def __init__(self, primary: str, *, file: str = "", position: int = -1, hint: str = "") -> None:
        """Keep the file and the byte position of the damage."""
        self.file, self.position = file, position
        detail = f"{file} byte {position}" if file else (f"byte {position}" if position >= 0 else "")
        super().__init__(primary, detail=detail, hint=hint)


class OffsetOutOfRangeError(LogError):
    """Raised when an offset lies before the log start or after its end.

    Choose an offset that the topic still has.
    """


class SegmentFullError(LogError):
    """Raised when a batch does not fit into the active segment.

    The log rolls and retries; users never see it.
    """


class UnknownTopicError(LogError):
    """Raised when a topic or partition does not exist.

    Create it with `streamkit topics create` or `streamkit produce`.
    """


class RecordTooLargeError(LogError):
    """Raised when one record exceeds `max.message.bytes` (1,048,588 by default); carries its index in what was sent.

    Make the record smaller, or raise the topic's limit.
    """

    def __init__(self, index: int, *, size_bytes: int, limit_bytes: int, value: bytes, place: str = "") -> None:
        """Keep which record it is; `place` is the partition it was for."""
        self.index, self.size_bytes, self.limit_bytes, self.value = index, size_bytes, limit_bytes, value
        super().__init__(
            f"record {index} takes {size_bytes} bytes as a record batch, more than the limit of {limit_bytes}",
            detail=f"{f'for {place}, ' if place else ''}its value begins {_preview(value)}",
            hint="make the record smaller, or raise max.message.bytes of the topic",
        )


class LogLockedError(LogError):
    """Raised when another process uses the log directory.

    Stop the other process, or use another directory.
    """


class StateError(StreamkitError):
    """Raised when local state cannot serve.

    See the subclasses.
    """


class StoreClosedError(StateError):
    """Raised when a closed store is used.

    Reopen the task; this is a programming error.
    """


class UnknownStoreError(StateError):
    """Raised when a job has no store of that name.

    `streamkit describe JOB` lists the stores.
    """


class StoreLockedError(StateError):
    """Raised when a state directory is in use or belongs to another job.

    Stop the other worker, or pass another `--state-dir`.
    """


class StoreInUseError(StoreLockedError):
    """Raised when another worker holds a state directory right now.

    It may be about to give it back; else stop that worker, or use another state directory.
    """


class StoreDamagedError(StateError):
    """Raised when a store's files are damaged.

    The directory is set aside and restored from the changelog.
    """

    answer = Answer.RESTORE


class DigestMismatchError(StateError):
    """Raised when two stores at one position differ.

    The message names the store and the first differing key range.
    """


class FileError(StreamkitError):
    """Raised when a file that a stream is bound to is damaged, has changed or cannot be read; names file and byte.

    What was committed before is intact: mend the file, or put it back as it was.
    """

    def __init__(self, primary: str, *, path: str = "", position: int = -1, hint: str = "") -> None:
        """Keep the file, and the byte position if there is one."""
        self.path, self.position = path, position
        super().__init__(primary, detail=f"{path} byte {position}" if position >= 0 else path, hint=hint)


class BrokerError(StreamkitError):
    """Raised when the broker refuses or fails a request.

    `retriable` says whether the same request may succeed later.
    """

    retriable: ClassVar[bool] = False


class BrokerUnavailableError(BrokerError):
    """Raised when the broker does not answer.

    Retried within a deadline.
    """

    answer = Answer.RETRY
    retriable = True


class ProducerFencedError(BrokerError):
    """Raised when a newer producer took the same transactional id.

    Close dirty: the successor owns the task.
    """

    answer = Answer.CLOSE_DIRTY


class CommitFailedError(BrokerError):
    """Raised when the outcome of a commit is unknown or it failed, or records of a producer may be missing.

    Throw the producer away, open a new one, and read the committed offsets again.
    """

    answer = Answer.CLOSE_DIRTY


class TaskError(StreamkitError):
    """Raised when a task cannot go on.

    See the subclasses.
    """


class TaskCorruptedError(TaskError):
    """Raised when local state and the log disagree.

    The directory is set aside and restored from the changelog.
    """

    answer = Answer.RESTORE


class TaskMigratedError(TaskError):
    """Raised when another worker owns the task.

    Close dirty, commit nothing.
    """

    answer = Answer.CLOSE_DIRTY


class RunReplacedError(TaskError):
    """Raised when another run of the job has begun while this worker was still in the one before.

    Start the worker again with the options of the others.
    """

    answer = Answer.STOP
