"""The built-in aggregates, each a triple of partial, merge and final, record by record and in columns.

What they mean, in both spellings alike:

- `count` counts rows. The others skip nulls; without a value left, they are null.
- `sum` of integers is exact; if the total leaves 64 bits, `AggregateOverflow` is raised at the end, whatever partial
  sums did. `sum` of floats and `mean` are exact and rounded once (see `runtime.exact`); NaN, or infinities of both
  signs, make them NaN; one sign makes them infinite.
- `min` and `max` of floats leave NaN aside unless there is nothing else; -0.0 is less than 0.0. Text is compared by
  code point, False is less than True.
- `first` and `last` go by (timestamp, source topic, partition, offset, row), and so do the values of `collect`.
- `arg_min` and `arg_max` take the row of an extreme, the first of equal ones by the same order.
- `var` and `std` are exact and rounded once.
- `top_k`, `collect` and `distinct` keep a sorted list, which may be empty; the last two fail beyond their limit.
"""

from streamkit.runtime.aggregates.base import AggregateOverflow, source_order
from streamkit.runtime.aggregates.frames import FrameAggregates
from streamkit.runtime.aggregates.rows import RowAggregates
from streamkit.topology import check_aggregates

__all__ = ["AggregateOverflow", "FrameAggregates", "RowAggregates", "check_aggregates", "source_order"]
