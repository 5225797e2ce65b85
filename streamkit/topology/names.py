"""What a name stands for outside the job: internal topics, and the place of a store's keys."""

import zlib

from streamkit.state.keys import STORE_INDEX_MAX

__all__ = ["changelog_topic", "dead_letter_topic", "repartition_topic", "replay_topic", "store_index"]


def changelog_topic(job: str, store: str) -> str:
    """Return the changelog topic of a store."""
    return f"{job}-{store}-changelog"


def repartition_topic(job: str, node: str) -> str:
    """Return the repartition topic of a node that changes the key."""
    return f"{job}-{node}-repartition"


def dead_letter_topic(job: str) -> str:
    """Return the topic of the records that a job could not process."""
    return f"{job}.dead_letter"


def replay_topic(job: str) -> str:
    """Return the topic that is there while a job is being replayed, and says how far that is."""
    return f"{job}-replay"


def store_index(store: str) -> int:
    """Return the number that leads the keys of a store, in the store and in its changelog.

    It depends on the name alone. A number by position would give a store's keys to another one as soon as a
    job defines a store before it.
    """
    return zlib.crc32(store.encode()) % (STORE_INDEX_MAX + 1)
