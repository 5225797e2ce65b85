"""Repartition records that every reader has committed are let go of, some megabytes at a time, beside the loop.

They only take room, so nothing waits for a broker that is silent: records that stay are deleted with the next ones.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from streamkit.broker import Admin
from streamkit.errors import Answer, StreamkitError
from streamkit.records import TopicPartition

__all__ = ["Trims"]

_TRIM_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class Trims:
    """Deletes for one worker; one request is under way at a time.

    Args:
        admin: Of the broker.
    """

    def __init__(self, admin: Admin) -> None:
        """Delete nothing yet."""
        self._admin = admin
        self._untrimmed_bytes = 0
        self._before: dict[TopicPartition, int] = {}
        self._asked: dict[TopicPartition, int] = {}
        self._deleting: Future[None] | None = None

    @property
    def under_way(self) -> list[Future[None]]:
        """What is being deleted just now."""
        return [] if self._deleting is None else [self._deleting]

    def add(self, before: Mapping[TopicPartition, int], read_bytes: int) -> None:
        """Note what need not be kept.

        Args:
            before: Where each repartition partition may begin from now on.
            read_bytes: How much was read since the last time.
        """
        self._before |= before
        self._untrimmed_bytes += read_bytes

    def start(self, threads: ThreadPoolExecutor) -> None:
        """Delete, once enough has come together, on a thread of these."""
        if self._deleting is not None or self._untrimmed_bytes < _TRIM_BYTES or not self._before:
            return
        self._untrimmed_bytes, self._asked = 0, dict(self._before)
        self._deleting = threads.submit(self._admin.delete_records, self._asked)

    def collect(self) -> None:
        """Take the result of what has ended.

        Raises:
            StreamkitError: The broker refuses; that it does not answer is logged, and no error.
        """
        if self._deleting is None or not self._deleting.done():
            return
        deleted, self._deleting = self._deleting, None
        try:
            deleted.result()
        except StreamkitError as error:
            if error.answer is not Answer.RETRY:
                raise
            _log.warning("records that were read stay in repartition topics for now: %s", error.primary)
        else:
            self._before = dict(self._before.items() - self._asked.items())
