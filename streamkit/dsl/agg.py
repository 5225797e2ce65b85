"""Built-in aggregates, as `agg.count()` and so on.

They give the same answer in columns and record by record, whatever the batches, the partitions and the crashes in
between. Nulls are skipped, as in SQL; a group without a value left is null, its `sum` too (Polars says 0).
"""

from streamkit.graph import Aggregate

__all__ = ["count", "first", "last", "max", "mean", "min", "sum"]


def count() -> Aggregate:
    """Count rows, whatever is in them."""
    return Aggregate("count")


def sum(column: str) -> Aggregate:  # the word of SQL and Polars
    """Add a column of numbers up.

    A sum of integers is exact; one that leaves 64 bits at the end is a `ProcessingError`, whatever partial sums did. A
    sum of floats is the exact sum, rounded once, so that no order of rows shows in it; beyond the largest float it is
    an infinity, of zeros it is 0.0. NaN, or infinities of both signs, make it NaN. Booleans are no numbers.
    """
    return Aggregate("sum", column)


def min(column: str) -> Aggregate:  # the word of SQL and Polars
    """Take the smallest number, text, bytes or boolean.

    NaN is the answer only where there is nothing else; -0.0 is smaller than 0.0; text is compared by code point, bytes
    by byte, False is smaller than True.
    """
    return Aggregate("min", column)


def max(column: str) -> Aggregate:  # the word of SQL and Polars
    """Take the largest number, text, bytes or boolean; compared as `min` does, NaN only where there is nothing else."""
    return Aggregate("max", column)


def mean(column: str) -> Aggregate:
    """Take the mean of a column of numbers: the exact sum, divided and rounded once, always a float.

    A sum that is too large for `sum` does it no harm. NaN and infinities count as in `sum`.
    """
    return Aggregate("mean", column)


def first(column: str) -> Aggregate:
    """Take the value of the first row that has one, by (timestamp, source topic, partition, offset, row).

    Rows that one record became keep their order. NaN is a value.
    """
    return Aggregate("first", column)


def last(column: str) -> Aggregate:
    """Take the value of the last row that has one, by (timestamp, source topic, partition, offset, row).

    Rows that one record became keep their order. NaN is a value.
    """
    return Aggregate("last", column)
