"""Built-in aggregates, as `agg.count()` and so on.

They give the same answer in columns and record by record, whatever the batches, the partitions and the crashes in
between. Nulls are skipped, as in SQL; a group without a value left is null, its `sum` too (Polars says 0).
"""

from streamkit.errors import DefinitionError
from streamkit.graph import Aggregate

__all__ = ["arg_max", "arg_min", "count", "first", "last", "max", "mean", "min", "std", "sum", "var"]


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


def var(column: str, *, ddof: int = 1) -> Aggregate:
    """Take the variance of a column of numbers: exact, rounded once, always a float.

    Args:
        column: Its name.
        ddof: Delta degrees of freedom, >= 0: n values are divided by n - ddof. 1, as in Polars, estimates the variance
            of what the values are a sample of; 0 is the variance of the values themselves.

    It is null of `ddof` values or fewer, NaN if one of them is NaN or infinite.

    Raises:
        DefinitionError: `ddof` is no integer >= 0.
    """
    return Aggregate("var", column, ddof=_checked(ddof, "ddof", 0))


def std(column: str, *, ddof: int = 1) -> Aggregate:
    """Take the standard deviation of a column of numbers: the root of the exact `var`, rounded once.

    Args:
        column: Its name.
        ddof: As in `var`.

    Raises:
        DefinitionError: `ddof` is no integer >= 0.
    """
    return Aggregate("std", column, ddof=_checked(ddof, "ddof", 0))


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


def arg_min(column: str, *, by: str) -> Aggregate:
    """Take the value of the row in which another column is least.

    Args:
        column: Whose value is taken; null where it is null in that row.
        by: The column that is compared, as `min` compares; rows in which it is null are skipped. Of rows that are
            equal in it the first is taken, by (timestamp, source topic, partition, offset, row).

    Example:
        >>> from streamkit import agg
        >>> agg.arg_min("bidder", by="price").columns
        ('bidder', 'price')
    """
    return Aggregate("arg_min", column, by=by)


def arg_max(column: str, *, by: str) -> Aggregate:
    """Take the value of the row in which another column is greatest; the first of equal ones, as in `arg_min`.

    Args:
        column: Whose value is taken; null where it is null in that row.
        by: The column that is compared, as `max` compares; rows in which it is null are skipped.
    """
    return Aggregate("arg_max", column, by=by)


def _checked(number: int, name: str, least: int, most: int = 2**31) -> int:
    if type(number) is not int or not least <= number <= most:
        raise DefinitionError(f"{name}={number!r} is no integer from {least:,} to {most:,}")
    return number
