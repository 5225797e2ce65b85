"""Records that are set aside: what of a task's input its sources' error policies leave out.

A bad record leaves no trace: no row of it in a group, no output of another branch, no step of the watermark. Where it
is found, some of that has happened already; so the task goes back to its last commit, in memory, and reads again
without it. Which records are left out since that commit is kept here; a crash forgets it, and they are found once more.

Not here: going back (`runner`), finding all bad records of what was fetched (`probe`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from streamkit.errors import PunctuationError, RecordError, RowWiseError
from streamkit.graph.nodes import OnError
from streamkit.records import Batch, Header, RecordColumns, RowError, TopicPartition
from streamkit.runtime.options import PlaceOf, place_in_topic
from streamkit.runtime.outbox import Outbox

__all__ = ["ATTEMPT_HEADER", "TABLE_HEADER", "Aside", "LeftOut", "PickedRecords", "letter_headers"]

ATTEMPT_HEADER: Final = "dead_letter.attempt"
"""Of a record that was sent again: how often it has failed before."""
TABLE_HEADER: Final = "dead_letter.table"
"""Of a dead letter that is a result of this table, and no record."""
_REASON_CHARS_MAX: Final = 2000
_NOT_OF_THE_RECORD: Final = (RowWiseError, PunctuationError)

ResultId: TypeAlias = tuple[int, bytes | None, bytes | None]
"""Start of the window (0 without), key, and value; None where it cannot be encoded, which stands for any."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedRecords:
    """Some of the records that were read, as the same columns."""

    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[list[Header]] | None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.values)

    @classmethod
    def of(cls, records: "RecordColumns | PickedRecords", rows: npt.NDArray[np.int64]) -> "PickedRecords":
        """Return the records at `rows`, in that order."""
        indices = rows.tolist()
        keys, headers = records.keys, records.headers
        return cls(
            offsets=records.offsets[rows],
            timestamps_ms=records.timestamps_ms[rows],
            keys=[keys[index] for index in indices],
            values=[records.values[index] for index in indices],
            headers=None if headers is None else [list(headers[index]) for index in indices],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """How many records were skipped, and how many of them were written as dead letters too."""

    skipped: int = 0
    dead_letters: int = 0


class Aside:
    """The bad records of one task's sources since its last commit, and what is done with them.

    Args:
        policies: By topic.
        letters: The partition that dead letters go to; None if there is no such policy.
        results: For the results of tables, which are of no one record: what the job says.
        place_of: Names the place of a record in warnings.
    """

    def __init__(
        self,
        policies: Mapping[str, OnError],
        letters: TopicPartition | None,
        results: OnError = "fail",
        place_of: PlaceOf = place_in_topic,
    ) -> None:
        """Begin with none."""
        self._policies, self._letters, self._results_policy = policies, letters, results
        self._place_of = place_of
        self._bad: dict[TopicPartition, dict[int, RecordError]] = {}
        self._bad_results: dict[str, dict[ResultId, RecordError]] = {}

    @property
    def lenient(self) -> bool:
        """Whether any source does something else than fail."""
        return any(policy != "fail" for policy in (*self._policies.values(), self._results_policy))

    def takes(self, place: TopicPartition, error: RecordError) -> bool:
        """Return whether an error is of a record of this partition that need not stop the run.

        A node that is not row-wise is wrong for every record; a punctuation would fail before the next one too.
        """
        own = (error.topic, error.partition) == place and not isinstance(error, _NOT_OF_THE_RECORD)
        return own and self._policies.get(place.topic, "fail") != "fail"

    def takes_results(self, table: str, error: RecordError) -> bool:
        """Return whether an error is of a result of this table, and need not stop the run."""
        return error.topic == table and not isinstance(error, _NOT_OF_THE_RECORD) and self._results_policy != "fail"

    def add_results(self, table: str, batch: Batch, found: Mapping[int, RecordError]) -> bool:
        """Leave these results out from now on, by their rows; return whether any of them is new."""
        ids = _result_ids(batch)
        known = self._bad_results.setdefault(table, {})
        fresh = {ids[row]: error for row, error in found.items() if ids[row] not in known}
        known.update(fresh)
        for (_, key, _), error in fresh.items():
            _log.warning("result of table %s for key %r: set aside (%s)", table, key, error.primary)
        return bool(fresh)

    def has_results(self, table: str) -> bool:
        """Return whether any result of a table is left out."""
        return bool(self._bad_results.get(table))

    def without_results(
        self, batch: Batch, reading: tuple[TopicPartition, int] | None, outbox: Outbox
    ) -> tuple[Batch, LeftOut]:
        """Return results without the bad ones; their letters name what the task had read last."""
        table, ids = batch.origin.source.topic, _result_ids(batch)
        bad = self._bad_results[table]
        rows = [row for row, one in enumerate(ids) if one in bad]
        if not rows:
            return batch, LeftOut()
        kept = batch.take(np.setdiff1d(np.arange(len(batch), dtype=np.int64), rows))
        if self._results_policy != "dead_letter":
            return kept, LeftOut(skipped=len(rows))
        assert self._letters is not None, "the policy has a topic"
        place, offset = (batch.origin.source, -1) if reading is None else reading
        own = [(TABLE_HEADER, table.encode())]
        outbox.add(
            self._letters,
            batch.timestamps_ms[rows],
            [ids[row][1] for row in rows],
            [ids[row][2] for row in rows],
            [letter_headers(place, offset, bad[ids[row]], own) for row in rows],
        )
        return kept, LeftOut(skipped=len(rows), dead_letters=len(rows))

    def add(self, place: TopicPartition, found: Mapping[int, RecordError]) -> bool:
        """Leave these records out from now on, by offset; return whether any of them is new."""
        known = self._bad.setdefault(place, {})
        if found.keys() <= known.keys():
            return False
        known.update(found)
        offset = min(found)
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        _log.warning("%s%s: set aside (%s)", self._place_of(place, offset), more, found[offset].primary)
        return True

    def unknown(self, place: TopicPartition, found: Mapping[int, RecordError]) -> dict[int, RecordError]:
        """Return what is found now for the first time: what waits for its turn has the bad ones among it."""
        known = self._bad.get(place, {})
        return {offset: error for offset, error in found.items() if offset not in known}

    def keep_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Forget the records below what is committed of each partition."""
        self._bad = {
            place: {offset: error for offset, error in bad.items() if offset >= positions.get(place, 0)}
            for place, bad in self._bad.items()
        }

    def forget_results(self) -> None:
        """Forget the results: what was emitted so far is sealed."""
        self._bad_results = {}

    def has(self, place: TopicPartition) -> bool:
        """Return whether any record of a partition is left out."""
        return bool(self._bad.get(place))

    def readable(self, source: str, place: TopicPartition, records: "RecordColumns") -> PickedRecords:
        """Return the records without those that the source itself could not read; nothing is counted yet."""
        bad = [offset for offset, error in self._bad[place].items() if error.node == source]
        return PickedRecords.of(records, np.flatnonzero(~np.isin(records.offsets, bad)))

    def without_known(self, batch: Batch) -> Batch:
        """Return rows without those of bad records; nothing is counted."""
        place = batch.origin.source
        return batch.take(np.flatnonzero(~self._known(place, batch.offsets))) if self.has(place) else batch

    def without_rows(self, batch: Batch, outbox: Outbox) -> tuple[Batch, LeftOut]:
        """Return rows that came through a shuffle without those of bad records, which go to the outbox as above."""
        place = batch.origin.source
        known = self._known(place, batch.offsets)
        if not known.any():
            return batch, LeftOut()
        bad = batch.take(np.flatnonzero(known))
        headers = bad.headers
        rows = PickedRecords(
            offsets=bad.offsets,
            timestamps_ms=bad.timestamps_ms,
            keys=list(bad.keys.encoded()),
            values=list(bad.values.encoded()),
            headers=None if headers is None else [list(one) for one in headers],
        )
        return batch.take(np.flatnonzero(~known)), self.without(place, rows, outbox)[1]

    def _known(self, place: TopicPartition, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of these offsets are of bad records."""
        bad = self._bad[place]
        return np.isin(offsets, np.fromiter(bad, dtype=np.int64, count=len(bad)))

    def without(
        self, place: TopicPartition, records: "RecordColumns | PickedRecords", outbox: Outbox
    ) -> tuple["RecordColumns | PickedRecords", LeftOut]:
        """Return the records without the bad ones; these go to the outbox, if that is what the policy says."""
        bad, known = self._bad[place], self._known(place, records.offsets)
        if not known.any():
            return records, LeftOut()
        out = PickedRecords.of(records, np.flatnonzero(known))
        skipped = len(out)
        if self._policies[place.topic] != "dead_letter":
            return PickedRecords.of(records, np.flatnonzero(~known)), LeftOut(skipped=skipped)
        assert self._letters is not None, "the policy has a topic"
        own: Sequence[Sequence[Header]] = [()] * skipped if out.headers is None else out.headers
        headers = [
            letter_headers(place, offset, bad[offset], of_record)
            for offset, of_record in zip(out.offsets.tolist(), own, strict=True)
        ]
        outbox.add(self._letters, out.timestamps_ms, out.keys, out.values, headers)
        left_out = LeftOut(skipped=skipped, dead_letters=skipped)
        return PickedRecords.of(records, np.flatnonzero(~known)), left_out


def _result_ids(batch: Batch) -> list[ResultId]:
    starts = [0] * len(batch) if batch.windows is None else batch.windows[0].tolist()
    try:
        values: Sequence[bytes | None] = batch.values.encoded()
    except RowError:
        values = [None] * len(batch)
    return list(zip(starts, batch.keys.encoded(), values, strict=True))


def letter_headers(place: TopicPartition, offset: int, error: RecordError, of_record: Sequence[Header]) -> list[Header]:
    """Return the headers of a dead letter: what is wrong, where the record was, then its own headers.

    Args:
        place: Where it was read.
        offset: Its offset there.
        error: What is wrong with it.
        of_record: Its headers; one of them says how often it has failed before, if it was sent again.
    """
    before = next((int(data) for name, data in of_record if name == ATTEMPT_HEADER and data is not None), 0)
    return [
        ("reason", error.primary[:_REASON_CHARS_MAX].encode("utf-8", "backslashreplace")),
        ("node", error.node.encode()),
        ("topic", place.topic.encode()),
        ("partition", b"%d" % place.partition),
        ("offset", b"%d" % offset),
        ("attempt", b"%d" % (before + 1)),
        *(header for header in of_record if header[0] != ATTEMPT_HEADER),
    ]
