"""Records at their offsets, as the engine reads them: of the log, or of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.records.encoded import Header

__all__ = ["PlacedRecords", "RecordColumns", "SlicedRecords"]


class RecordColumns(Protocol):
    """Records of one partition, in order, as columns of one length; `offsets` ascend, with gaps."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The offset of each record."""
        ...

    @property
    def values(self) -> Sequence[bytes | None]:
        """The value of each record, encoded."""
        ...

    @property
    def keys(self) -> Sequence[bytes | None]:
        """The key of each record, encoded."""
        ...

    @property
    def timestamps_ms(self) -> npt.NDArray[np.int64]:
        """The timestamp of each record."""
        ...

    @property
    def headers(self) -> Sequence[Sequence[Header]] | None:
        """The headers of each record; None when no record has any."""
        ...

    def __len__(self) -> int:
        """Return how many records there are."""
        ...

    def below(self, end_offset: int) -> "RecordColumns":
        """Return the records whose offset lies below `end_offset`."""
        ...


@dataclass(frozen=True, slots=True)
class SlicedRecords:
    """Consecutive ones of other records, `[begin, end)`; see `RecordColumns`."""

    whole: RecordColumns
    begin: int
    end: int

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The offset of each record."""
        return self.whole.offsets[self.begin : self.end]

    @property
    def values(self) -> Sequence[bytes | None]:
        """The value of each record, encoded."""
        return self.whole.values[self.begin : self.end]

    @property
    def keys(self) -> Sequence[bytes | None]:
        """The key of each record, encoded."""
        return self.whole.keys[self.begin : self.end]

    @property
    def timestamps_ms(self) -> npt.NDArray[np.int64]:
        """The timestamp of each record."""
        return self.whole.timestamps_ms[self.begin : self.end]

    @property
    def headers(self) -> Sequence[Sequence[Header]] | None:
        """The headers of each record; None when no record of all has any."""
        headers = self.whole.headers
        return None if headers is None else headers[self.begin : self.end]

    def __len__(self) -> int:
        """Return how many records there are."""
        return self.end - self.begin

    def below(self, end_offset: int) -> "SlicedRecords":
        """Return the records whose offset lies below `end_offset`."""
        count = int(np.searchsorted(self.offsets, end_offset))
        return SlicedRecords(self.whole, self.begin, self.begin + count)


class PlacedRecords(Protocol):
    """Records that are known by their place, and read when somebody asks for them."""

    @property
    def size_bytes(self) -> int:
        """About how much is read."""
        ...

    def read(self) -> RecordColumns:
        """Read them.

        Raises:
            StreamkitError: They cannot be read, or are no records.
        """
        ...
