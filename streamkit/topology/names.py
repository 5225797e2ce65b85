"""Names of internal topics: the job's name, the node's, and what the topic is for."""

__all__ = ["changelog_topic", "repartition_topic"]


def changelog_topic(job: str, store: str) -> str:
    """Return the changelog topic of a store."""
    return f"{job}-{store}-changelog"


def repartition_topic(job: str, node: str) -> str:
    """Return the repartition topic of a node that changes the key."""
    return f"{job}-{node}-repartition"
