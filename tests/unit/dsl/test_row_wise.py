"""Which expressions are row-wise: one row for each row, from that row alone."""

from collections.abc import Callable

import polars as pl
import pytest

from streamkit.dsl.row_wise import check_row_wise
from streamkit.errors import DefinitionError

a = pl.col("a")

SEES_OTHER_ROWS: dict[str, Callable[[], pl.Expr]] = {
    "cum_sum": lambda: a.cum_sum(),
    "shift": lambda: a.shift(),
    "rank": lambda: a.rank(),
    "over": lambda: a.sum().over("b"),
    "mean": lambda: a.mean(),
    "mean inside arithmetic": lambda: a - a.mean(),
    "shift inside arithmetic": lambda: a + a.shift(),
    "max inside a comparison": lambda: a > a.max(),
    "mean inside a condition": lambda: pl.when(a > a.mean()).then(1).otherwise(2),
    "cum_sum inside a choice": lambda: pl.when(a > 1).then(a.cum_sum()).otherwise(a),
    "mean as a filling": lambda: a.fill_null(a.mean()),
    "forward fill": lambda: a.forward_fill(),
    "max inside a format": lambda: pl.format("{}", a.max()),
    "max inside a horizontal sum": lambda: pl.sum_horizontal("b", a.max()),
    "mean inside a struct": lambda: pl.struct(a.mean()),
    "shift of every column": lambda: pl.all().shift(),
    "sum of chosen columns": lambda: pl.col("a", "b").sum(),
    "renamed shift": lambda: a.shift().name.suffix("_before"),
    "cast sum": lambda: a.sum().cast(pl.Float64),
    "kept name": lambda: a.diff().name.keep(),
    "cumulative_eval": lambda: a.cumulative_eval(pl.element().sum()),
    "rows counted": lambda: pl.len(),
    "rows numbered": lambda: pl.int_range(pl.len()),
    "sort": lambda: a.sort(),
    "reverse": lambda: a.reverse(),
    "first": lambda: a.first(),
    "head": lambda: a.head(2),
    "unique": lambda: a.unique(),
    "is_duplicated": lambda: a.is_duplicated(),
    "is_first_distinct": lambda: a.is_first_distinct(),
    "explode": lambda: pl.col("l").explode(),
    "implode": lambda: a.implode(),
    "filter": lambda: a.filter(a > 1),
    "drop_nulls": lambda: a.drop_nulls(),
    "drop_nans": lambda: a.drop_nans(),
    "append": lambda: a.append(a),
    "rolling_mean": lambda: a.rolling_mean(2),
    "shuffle": lambda: a.shuffle(seed=1),
    "series": lambda: pl.lit(pl.Series([1, 2])),
    "rows of a shifted list": lambda: pl.col("l").shift().list.len(),
    "function of Python on a column": lambda: a.map_batches(lambda series: series - series.mean()),
    "function of Python on an element": lambda: a.map_elements(lambda value: value, return_dtype=pl.Int64),
}

ROW_WISE: dict[str, Callable[[], pl.Expr]] = {
    "arithmetic": lambda: (a + 1) * 2 - a % 7,
    "comparison": lambda: (a > 1) & ~(a == 3),
    "literal": lambda: pl.lit(1),
    "literal that is called like an aggregation": lambda: pl.lit("Len"),
    "column that is called like an aggregation": lambda: pl.col("Agg") + pl.col("Sort"),
    "alias": lambda: a.alias("x"),
    "choice": lambda: pl.when(a > 1).then(pl.lit("x")).when(a > 2).then(pl.lit("y")).otherwise(None),
    "cast": lambda: a.cast(pl.Float64),
    "text": lambda: pl.col("s").str.to_lowercase().str.slice(0, 2),
    "format": lambda: pl.format("{}-{}", "a", "b"),
    "is_in": lambda: a.is_in([1, 2]),
    "is_in a series": lambda: a.is_in(pl.Series([1, 2])),
    "replace": lambda: pl.col("s").replace_strict({"a": 1}, default=0, return_dtype=pl.Int64),
    "fill_null": lambda: a.fill_null(0),
    "horizontal": lambda: pl.sum_horizontal("a", "b") + pl.max_horizontal("a", "b"),
    "coalesce": lambda: pl.coalesce("a", "b"),
    "time": lambda: pl.from_epoch("a", time_unit="ms").dt.truncate("1h"),
    "list aggregation": lambda: pl.col("l").list.sum(),
    "list sort": lambda: pl.col("l").list.sort(),
    "list eval": lambda: pl.col("l").list.eval(pl.element().rank()),
    "struct": lambda: pl.struct("a", "b").struct.field("a"),
    "struct fields": lambda: pl.struct("a", "b").struct.field("*"),
    "struct with_fields": lambda: pl.col("t").struct.with_fields(pl.field("x") + 1),
    "every column": lambda: pl.all(),
    "every column but one": lambda: pl.all().exclude("l"),
    "columns by type": lambda: pl.col(pl.Int64) * 2,
    "kept name": lambda: (a + 1).name.keep(),
    "suffix": lambda: pl.col("a", "b").name.suffix("_x"),
}


@pytest.mark.parametrize("made", SEES_OTHER_ROWS.values(), ids=SEES_OTHER_ROWS)
@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
def test_an_expression_that_sees_other_rows_is_refused(made: Callable[[], pl.Expr]) -> None:
    with pytest.raises(DefinitionError, match="is not row-wise"):
        check_row_wise(made(), "select")


@pytest.mark.parametrize("made", ROW_WISE.values(), ids=ROW_WISE)
def test_an_expression_of_one_row_is_taken(made: Callable[[], pl.Expr]) -> None:
    check_row_wise(made(), "select")


def test_the_error_names_the_verb_and_the_part_at_fault() -> None:
    with pytest.raises(DefinitionError) as caught:
        check_row_wise(a - a.mean(), "with_columns")
    assert "the expression of with_columns" in str(caught.value)
    assert "because of Agg" in str(caught.value)
