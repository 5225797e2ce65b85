"""The table of a topic: the last value of each key, in the order of its partition."""

from collections.abc import Sequence

import numpy as np

from streamkit.records import Batch, Column
from streamkit.runtime.keyed import KeyedState
from streamkit.runtime.operators.base import Fan
from streamkit.serde import Serde

__all__ = ["LatestOperator"]


class LatestOperator:
    """One store of one task, which holds the bytes of the topic's values.

    What it takes it hands on, row by row: a value as a value, a null as a deletion of its key. A null for a key that
    has no value deletes nothing, so it is not handed on.

    Args:
        node: The table.
        state: Its store.
        serde: Of its values.
    """

    def __init__(self, node: str, state: KeyedState, serde: Serde) -> None:
        """Go on from what the store holds."""
        self.node, self._state, self._serde = node, state, serde
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Store the last value of each key, then hand the rows on."""
        keys, values = _not_null(batch.keys.encoded()), batch.values.encoded()
        last = dict(zip(keys, values, strict=True))
        before = self._state.put_many(list(last), list(last.values()))
        there = {key for key, value in zip(last, before, strict=True) if value is not None}
        # The rows of one stretch either all have values or are all deletions.
        stretch: list[int] = []
        deleting = False
        for row, (key, value) in enumerate(zip(keys, values, strict=True)):
            deletes = value is None
            if deletes and key not in there:
                continue
            if deletes != deleting:
                self._hand_on(batch, stretch, deleted=deleting)
                stretch, deleting = [], deletes
            stretch.append(row)
            (there.discard if deletes else there.add)(key)
        self._hand_on(batch, stretch, deleted=deleting)

    def _hand_on(self, batch: Batch, rows: list[int], *, deleted: bool) -> None:
        if not rows:
            return
        indices = np.array(rows, dtype=np.int64)
        if deleted:
            self.out.receive(batch.take(indices).as_deleted())
            return
        encoded, objects = batch.values.encoded(), batch.values.objects()
        column = Column(self._serde, encoded=[encoded[row] for row in rows], objects=[objects[row] for row in rows])
        self.out.receive(batch.spread(indices, column))

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()

    def look_up(self, rows: Batch) -> Batch:
        """Return the rows whose key has a value, with that value."""
        stored = self._state.get_many(_not_null(rows.keys.encoded()))
        there = [row for row, value in enumerate(stored) if value is not None]
        return rows.spread(np.array(there, dtype=np.int64), Column(self._serde, encoded=[stored[row] for row in there]))

    def stored(self) -> list[tuple[bytes, object]]:
        """Return each encoded key with its value."""
        pairs = list(self._state.scan())
        return list(
            zip(
                [key for key, _ in pairs],
                self._serde.objects_from_encoded([value for _, value in pairs]),
                strict=True,
            )
        )


def _not_null(keys: Sequence[bytes | None]) -> list[bytes]:
    return [key for key in keys if key is not None]
