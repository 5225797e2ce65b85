"""Records at their offsets, as the engine reads them: of the log, or of a file."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.records.encoded import Header

__all__ = ["PlacedRecords", "RecordColumns"]


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
