"""The low-level door: what `process` and `punctuate` take, and the nodes they become."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args, overload

from streamkit.dsl.builder import Builder
from streamkit.dsl.handle import Handle
from streamkit.dsl.names import check_function, doc_of, durable_name, function_name
from streamkit.errors import DefinitionError
from streamkit.graph import to_ms
from streamkit.graph.nodes import Order, Process, Punctuation
from streamkit.graph.stores import Context, Store
from streamkit.records import Record

__all__ = ["Keeping", "ProcessFn", "PunctuateFn", "Punctuating", "Stores", "process_node"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

ProcessFn: TypeAlias = Callable[[Context, Record[K, V]], Iterable[Record[K2, V2]] | None]
Keeping: TypeAlias = ProcessFn[K, V, K, V2]
"""One whose records keep the key."""
PunctuateFn: TypeAlias = Callable[[Context, int], Iterable[Record[K, V]] | None]
Stores: TypeAlias = Sequence[Store[Any, Any]]
On: TypeAlias = Literal["event_time", "wall_clock"]

_SHORTEST_MS: Final = 1


def process_node(
    rows: Handle, fn: Any, stores: Sequence[Any], *, rekeys: bool, order: Order, name: str | None
) -> Process:
    """Return a node that hands whole records to a function."""
    check_function(fn, "process")
    durable = durable_name(fn, name, "process")
    if order not in get_args(Order):
        raise DefinitionError(f'order={order!r} of {durable!r} is neither "log" nor "arrival"')
    for store in stores:
        rows.job.check_store(store, durable)
    if len(set(map(id, stores))) != len(stores):
        raise DefinitionError(f"stores= of {durable!r} names a store twice")
    return Process(
        name=durable,
        inputs=(rows.name,),
        fn=fn,
        stores=tuple(stores),
        rekeys=rekeys,
        order=order,
        doc=doc_of(fn),
    )


def _punctuate(job: Builder, name: str, fn: Any, every: timedelta, on: On) -> None:
    """Add a punctuation to a node."""
    node = job.node(name)
    if not isinstance(node, Process):
        raise DefinitionError(f"{name!r} is no process, and nothing else takes a punctuation")
    check_function(fn, "punctuate")
    own = function_name(fn) or f"punctuation_{len(node.punctuations) + 1}"
    if on == "wall_clock":
        raise DefinitionError(
            f'{own!r} of {name!r}: on="wall_clock" is not supported',
            detail="what a clock fires depends on when the job runs, so no replay gives the same",
            hint='use on="event_time", which the timestamps of records move',
        )
    if on != "event_time":
        raise DefinitionError(f'on={on!r} of {own!r} is not "event_time"')
    if to_ms(every) < _SHORTEST_MS:
        raise DefinitionError(f"every={every} of {own!r} is shorter than 1 ms")
    job.replace(replace(node, punctuations=(*node.punctuations, Punctuation(name=own, fn=fn, every_ms=to_ms(every)))))


class Punctuating(Handle, Generic[K_co, V_co]):
    """What a stream of `process` can do beside being a stream."""

    @overload
    def punctuate(
        self: "Punctuating[K, V]", fn: PunctuateFn[K, V], *, every: timedelta, on: On = "event_time"
    ) -> PunctuateFn[K, V]: ...
    @overload
    def punctuate(
        self: "Punctuating[K, V]", *, every: timedelta, on: On = "event_time"
    ) -> Callable[[PunctuateFn[K, V]], PunctuateFn[K, V]]: ...
    def punctuate(self, fn: Any = None, *, every: timedelta, on: On = "event_time") -> Any:
        """Call a function on a schedule, with the context of the `process` and a timestamp (ms).

        Event time is, for each task, the largest timestamp of a source among the records that came to it so far. When a
        record brings it to or beyond a multiple of `every`, counted from the Unix epoch, the function is called before
        that record is processed: once, for the latest multiple that was passed. The first record ever sets the schedule
        and calls nothing. No time passes without records, nor when the input ends. What was called is committed with
        the rest, so a crash neither repeats nor loses a call.

        Shape: no row in, none to many out, ahead of those of the record; their timestamp is the multiple unless they
        say another. Nobody checks their keys: without `rekeys=True` they must be keys of records that came here.

        Args:
            fn: Yields records, or returns None.
            every: The period, 1 ms or more.
            on: "event_time"; "wall_clock" is refused.

        Returns:
            `fn` itself: what it yields is a part of this stream.

        Raises:
            DefinitionError: An argument is none of these, or this is a stream that came from a `process`.
            FrozenJobError: The job was built.
        """
        if fn is None:
            return lambda decorated: Punctuating.punctuate(self, decorated, every=every, on=on)
        _punctuate(self._job, self.name, fn, every, on)
        return fn
