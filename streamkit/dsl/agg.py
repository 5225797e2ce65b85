"""Built-in aggregates, as `agg.count()` and so on."""

from streamkit.graph import Aggregate

__all__ = ["count", "first", "last", "max", "mean", "min", "sum"]


def count() -> Aggregate:
    """Count rows."""
    return Aggregate("count")


def sum(column: str) -> Aggregate:  # the word of SQL and Polars
    """Add a column up, exactly; an integer sum that leaves 64 bits is an error."""
    return Aggregate("sum", column)


def min(column: str) -> Aggregate:  # the word of SQL and Polars
    """Take the smallest value; nulls and NaN are skipped."""
    return Aggregate("min", column)


def max(column: str) -> Aggregate:  # the word of SQL and Polars
    """Take the largest value; nulls and NaN are skipped."""
    return Aggregate("max", column)


def mean(column: str) -> Aggregate:
    """Take the mean, rounded once at the end."""
    return Aggregate("mean", column)


def first(column: str) -> Aggregate:
    """Take the value of the first row by (timestamp, source, partition, offset)."""
    return Aggregate("first", column)


def last(column: str) -> Aggregate:
    """Take the value of the last row by (timestamp, source, partition, offset)."""
    return Aggregate("last", column)
