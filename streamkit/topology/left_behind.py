"""Internal topics that bear a job's name, and that the job as it is has no use for. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from streamkit.topology.model import Topology
from streamkit.topology.names import changelog_topic, repartition_topic

__all__ = ["LEFT_HINT", "left_behind", "said_of"]

LEFT_HINT: Final = "name= keeps what a renamed one had; streamkit replay computes everything anew for the job as it is"
"""What to do about them."""


def left_behind(topology: Topology, topics: Iterable[str]) -> list[str]:
    """Return which topics look like changelogs and shuffles of a job and are none of its own, sorted.

    A store or shuffle that was renamed or removed leaves one. So may another job whose name begins with this one's:
    who deletes what is returned here deletes too much.
    """
    used = {store.changelog_topic for sub in topology.sub_topologies for store in sub.stores}
    used |= {repartition.topic for repartition in topology.repartitions}
    forms = [made(topology.job, "*").split("*") for made in (changelog_topic, repartition_topic)]
    return sorted(
        topic
        for topic in topics
        if topic not in used and any(topic.startswith(begin) and topic.endswith(end) for begin, end in forms)
    )


def said_of(left: Sequence[str]) -> str:
    """Return what an error says of them; nothing if there are none."""
    return f"no store or shuffle of the job is behind {', '.join(left)}: one was renamed or removed" if left else ""
