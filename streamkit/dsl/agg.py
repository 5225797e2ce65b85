"""Built-in aggregates, as `agg.count()` and so on.

They give the same answer in columns and record by record, whatever the batches, the partitions and the crashes in
between. Nulls are skipped, as in SQL; a group without a value left is null, its `sum` too (Polars says 0); a list is
then empty, and the number of different values 0.
"""

from streamkit.errors import DefinitionError
from streamkit.graph import Aggregate

__all__ = [
    "arg_max",
    "arg_min",
    "collect",
    "count",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "std",
    "sum",
    "top_k",
    "var",
]


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


def top_k(column: str, k: int) -> Aggregate:
    """Take the k largest values, the largest first; equal values each count.

    Numbers, text, bytes and booleans, compared as `max` compares; NaN comes after all numbers. A group of fewer values
    has all of them. Equal values cannot be told apart, so there are no ties to break.

    Args:
        column: Its name.
        k: How many, 1 to 10,000.

    Raises:
        DefinitionError: `k` is out of its range.

    Cost: each group keeps up to k values, and writes them to the changelog at each commit that changed it.
    """
    return Aggregate("top_k", column, limit=_checked(k, "k", 1, 10_000))


def collect(column: str, *, limit: int = 1000) -> Aggregate:
    """Take all values as a list, by (timestamp, source topic, partition, offset, row), as `first` and `last` go.

    Args:
        column: Its name.
        limit: How many a group may have, 1 to 1,000,000; one more is a `ProcessingError`, whatever the batches. A
            topic limits the bytes of a record too, 1 MB by default.

    Raises:
        DefinitionError: `limit` is out of its range.

    Cost: each group keeps its values, each with its place, and writes them to the changelog at each commit that changed
    it.
    """
    return Aggregate("collect", column, limit=_checked(limit, "limit", 1, 1_000_000))


def distinct(column: str, *, approx: bool = False, limit: int | None = None) -> Aggregate:
    """Count the different values of a column of numbers, text, bytes or booleans.

    0.0 and -0.0 are one value, so are all NaN, and so are 1 and 1.0 where the rows have no declared type.

    Args:
        column: Its name.
        approx: Estimate instead, by a sketch: exact up to 4,096 values, beyond them within 1.6 % of the true count in
            two groups of three and within 4.7 % in all but three of a thousand. The estimate depends on the values
            alone, so it is the same whatever the batches and their order.
        limit: How many a group may have if they are counted exactly, 1 to 1,000,000, 10,000 unless said; one more is
            a `ProcessingError`, whatever the batches.

    Raises:
        DefinitionError: `limit` is out of its range, or goes with `approx`.

    Cost: each group keeps its values, or 32 KiB of sketch at most, and writes them to the changelog at each commit that
    changed it.
    Source: theta sketches of Apache DataSketches, 4,096 hashes of 64 bits.
    """
    if approx:
        if limit is not None:
            raise DefinitionError("an approximate count has no limit", hint="leave limit= or approx= out")
        return Aggregate("approx_distinct", column)
    return Aggregate("distinct", column, limit=_checked(10_000 if limit is None else limit, "limit", 1, 1_000_000))


def _checked(number: int, name: str, least: int, most: int = 2**31) -> int:
    if type(number) is not int or not least <= number <= most:
        raise DefinitionError(f"{name}={number!r} is no integer from {least:,} to {most:,}")
    return number
