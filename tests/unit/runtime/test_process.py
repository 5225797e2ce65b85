"""`process`: whole records in and out, and stores of the task."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from number_jobs import numbers, running, send

from streamkit import Context, Job, ProcessingError, Record, Store, Tumbling, agg
from streamkit.errors import DefinitionError, UnknownStoreError
from streamkit.log import decode_parts
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.keyed import KeyedState
from streamkit.runtime.overlay import Overlay
from streamkit.runtime.typed_store import TypedStore
from streamkit.state import Digest, MemoryStore, store_key
from streamkit.testing import TestDriver


class Amount(msgspec.Struct):
    value: int


Yielded = Iterator[Record[str, Any]]
Body = Callable[[Context, Record[str, int]], Yielded]


def made(body: Body, *records: tuple[str, Any, int], stores: Sequence[Any] = (), **options: Any) -> list[Any]:
    """Return key, value and timestamp of what a function yields for records."""
    job = Job("made")
    numbers(job).process(body, stores=stores, name="body", **options).to("out")
    with TestDriver(job) as driver:
        send(driver, *records)
        driver.commit()
        return driver.sent_records("out")


def test_a_function_gets_whole_records_and_its_outputs_stand_together_in_order() -> None:
    def body(ctx: Context, number: Record[str, int]) -> Yielded:
        for part in range(number.value):
            yield Record(key=number.key, value=[ctx.partition, part], timestamp_ms=number.timestamp_ms + part)

    assert made(body, ("a", 2, 10), ("b", 0, 11), ("c", 1, 12)) == [
        ("a", [0, 0], 10),
        ("a", [0, 1], 11),
        ("c", [0, 0], 12),
    ]


def test_a_record_without_a_timestamp_has_that_of_the_one_it_was_made_for() -> None:
    assert made(lambda ctx, number: iter([Record(key=number.key, value=0)]), ("a", 1, 77)) == [("a", 0, 77)]


def test_a_function_may_return_a_list_or_nothing() -> None:
    def body(ctx: Context, number: Record[str, int]) -> Any:
        return [number, number] if number.value else None

    assert made(body, ("a", 0, 1), ("b", 7, 2)) == [("b", 7, 2)] * 2


def test_headers_go_in_and_out_and_are_those_that_are_yielded() -> None:
    job = Job("headers")

    @numbers(job).process
    def tagged(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        yield number
        yield Record(key=number.key, value=len(number.headers), headers=(*number.headers, ("count", None)))
        yield Record(key=number.key, value=0)

    tagged.to("out")
    with TestDriver(job) as driver:
        producer = driver.broker.producer()
        records = EncodedRecords.to_append(timestamps_ms=[1], keys=[b"a"], values=[b"1"], headers=[[("by", b"me")]])
        producer.send(TopicPartition("numbers", 0), records)
        producer.flush()
        driver.commit()
        fetched = driver.broker.fetcher().fetch({TopicPartition("out", 0): 0}, wait_ms=0, bytes_max=10_000)
        assert headers_of(fetched) == [[("by", b"me")], [("by", b"me"), ("count", None)], []]


def headers_of(fetched: Any) -> list[Any]:
    return [list(one) for part in decode_parts(fetched[0].record_batches) for one in part.headers or []]


def test_a_store_is_read_as_it_was_just_written_and_is_kept_from_commit_to_commit() -> None:
    job = Job("sums")
    totals, summed = running(job, numbers(job))
    summed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1), ("a", 2, 2), ("b", 5, 3))
        driver.commit()
        send(driver, ("a", 4, 4))
        driver.commit()
        assert driver.sent("out") == [("a", 1), ("a", 3), ("b", 5), ("a", 7)]
        assert driver.store(totals) == {"a": 7, "b": 5}


def test_what_was_not_committed_is_gone_from_the_store_after_a_restart_and_is_made_again() -> None:
    job = Job("sums")
    totals, summed = running(job, numbers(job))
    summed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1))
        driver.commit()
        send(driver, ("a", 2, 2))
        driver.process()
        assert driver.store(totals) == {"a": 3}
        driver.restart()
        assert driver.store(totals) == {"a": 1}
        driver.commit()
        assert driver.sent("out") == [("a", 1), ("a", 3)]


def test_a_store_belongs_to_its_task() -> None:
    job = Job("sums")
    totals, summed = running(job, numbers(job))
    summed.to("out")
    with TestDriver(job, partitions=2) as driver:
        send(driver, ("a", 1, 1))
        send(driver, ("a", 10, 1), partition=1)
        driver.commit()
        assert [driver.store(totals, partition=partition) for partition in (0, 1)] == [{"a": 1}, {"a": 10}]
        with pytest.raises(UnknownStoreError, match="no process of the job uses the store 'other'"):
            driver.store(Store(name="other", key_type=str, value_type=int))


def test_a_deleted_key_is_gone_and_a_value_of_none_deletes_too() -> None:
    job = Job("deletes")
    kept = job.store("kept", key=str, value=int)

    @numbers(job).process(stores=[kept])
    def keep(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        store = ctx.store(kept)
        before = store.get(number.key)
        if number.value > 0:
            store.put(number.key, number.value)
        elif number.value:
            store.delete(number.key)
        else:
            store.put(number.key, None)  # type: ignore[arg-type]  # what the test is about
        yield number.with_value(-1 if before is None else before)

    keep.to("out")
    with TestDriver(job) as driver:
        for value in (3, -1, 4, 0, -1):
            send(driver, ("a", value, 0))
            driver.commit()
        assert [value for _, value in driver.sent("out")] == [-1, 3, -1, 4, -1]
        assert driver.store(kept) == {}


def test_items_come_by_the_bytes_of_their_keys_from_all_layers_within_their_bounds() -> None:
    """What is in the store, committed before; what was changed since; and what was changed in this very batch."""
    job = Job("scans")
    kept = job.store("kept", key=int, value=str)

    @numbers(job).process(stores=[kept])
    def scan(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, str]]:
        store = ctx.store(kept)
        store.put(number.value, number.key)
        yield number.with_value(repr([list(store.items()), list(store.items(10, 9)), list(store.items(begin=2))]))

    scan.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 9, 0))
        driver.commit()
        send(driver, ("b", 10, 0))
        driver.process()
        send(driver, ("c", 1, 0), ("d", 9, 0))
        driver.commit()
        whole = [[(1, "c"), (10, "b"), (9, "d")], [(10, "b")], [(9, "d")]]
        assert driver.sent("out")[-1] == ("d", repr(whole))


def test_what_is_written_while_items_are_iterated_over_is_not_seen_by_them() -> None:
    job = Job("scans")
    kept = job.store("kept", key=str, value=int)

    @numbers(job).process(stores=[kept])
    def grow(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        store = ctx.store(kept)
        store.put("a", 1)
        seen = 0
        for key, value in store.items():
            seen += 1
            store.put(f"{key}{value}", value + 1)
            list(store.items())
        yield number.with_value(seen)

    grow.to("out")
    with TestDriver(job) as driver:
        send(driver, ("k", 1, 0), ("k", 1, 0))
        driver.commit()
        assert [value for _, value in driver.sent("out")] == [1, 2]


def test_a_value_that_came_out_of_a_store_is_a_copy() -> None:
    job = Job("copies")
    kept = job.store("kept", key=str, value=list[int])

    @numbers(job).process(stores=[kept])
    def keep(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, list[int]]]:
        store = ctx.store(kept)
        mine = store.get(number.key) or []
        mine.append(number.value)
        if number.value < 3:
            store.put(number.key, mine)
        mine.append(0)
        yield number.with_value(store.get(number.key) or [])

    keep.to("out")
    with TestDriver(job) as driver:
        send(driver, ("k", 1, 0), ("k", 2, 0), ("k", 3, 0))
        driver.commit()
        assert [value for _, value in driver.sent("out")] == [[1], [1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda store: store.put("a", "text"), "the store 'kept' takes no such value"),
        (lambda store: store.put(None, 1), "the store 'kept' takes no such key"),
        (lambda store: store.get(3), "the store 'kept' takes no such key"),
        (lambda store: store.delete(b"a"), "the store 'kept' takes no such key"),
        (lambda store: store.items(begin=3), "the store 'kept' takes no such key"),
    ],
)
def test_what_does_not_fit_a_store_is_the_functions_error(use: Callable[[Any], object], said: str) -> None:
    job = Job("unfit")
    kept = job.store("kept", key=str, value=int)

    @numbers(job).process(stores=[kept])
    def misuse(ctx: Context, number: Record[str, int]) -> None:
        use(ctx.store(kept))

    with TestDriver(job) as driver:
        send(driver, ("a", 1, 0))
        with pytest.raises(ProcessingError, match=f"TypeError: {said}") as caught:
            driver.process()
        assert (caught.value.node, caught.value.offset) == ("misuse", 0)


def test_a_null_key_is_refused_even_where_its_type_has_one() -> None:
    job = Job("nulls")
    kept = job.store("kept", key=Any, value=int)

    @numbers(job).process(stores=[kept])
    def misuse(ctx: Context, number: Record[str, int]) -> None:
        ctx.store(kept).get(None)

    with TestDriver(job) as driver:
        send(driver, ("a", 1, 0))
        with pytest.raises(ProcessingError, match="'kept' has no key that is null"):
            driver.process()


def test_a_store_that_was_not_declared_stops_the_run_whatever_the_policy() -> None:
    job = Job("undeclared", on_error="skip")
    kept = job.store("kept", key=str, value=int)

    @numbers(job).process
    def forgotten(ctx: Context, number: Record[str, int]) -> None:
        ctx.store(kept).put("a", 1)

    forgotten.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 0))
        with pytest.raises(
            UnknownStoreError, match="'forgotten' uses the store 'kept' without having declared it"
        ) as caught:
            driver.process()
        assert "stores=[..., kept]" in caught.value.hint


def test_a_store_whose_contents_are_of_another_type_is_the_jobs_error() -> None:
    """The type of a store was changed between two runs, without a replay."""
    state = KeyedState(7, Overlay(MemoryStore()), Digest())
    before = TypedStore(Store[str, str](name="kept", key_type=str, value_type=str), state)
    before.put("a", "text")
    before.settle()
    changed = TypedStore(Store[str, int](name="kept", key_type=str, value_type=int), state)
    with pytest.raises(DefinitionError, match="'kept' holds a value that is not of its type int") as caught:
        changed.get("a")
    assert "replay the job" in caught.value.hint


def test_a_batch_that_touches_many_keys_keeps_few_of_them_apart() -> None:
    overlay = Overlay(MemoryStore())
    store = TypedStore(Store[int, int](name="kept", key_type=int, value_type=int), KeyedState(7, overlay, Digest()))
    for key in range(25_000):
        store.put(key, key)
        assert store.get(key) == key
        assert len(store._known) <= 10_000  # what the test is about
    store.settle()
    assert [store.get(key) for key in (0, 24_999)] == [0, 24_999]
    assert overlay.freeze().log[7].keys() == {store_key(7, b"%d" % key) for key in range(25_000)}


def test_another_key_is_refused_unless_it_may_change() -> None:
    def body(ctx: Context, number: Record[str, int]) -> Yielded:
        yield number.with_key(f"{number.key}{number.value}")

    assert made(body, ("a", 1, 5), rekeys=True) == [("a1", 1, 5)]
    with pytest.raises(ProcessingError, match="yielded a record with the key 'a1' for one with the key 'a'") as caught:
        made(body, ("a", 1, 5))
    assert caught.value.hint == "keep the key, or say process(rekeys=True)"


@pytest.mark.parametrize(
    ("yielded", "said"),
    [
        (3, "yielded 3, which is no Record"),
        (Record(key="a", value=1, timestamp_ms=2**60), "with the timestamp 1152921504606846976"),
        (Record(key="a", value=1, timestamp_ms=True), "with the timestamp True"),
        (Record(key="a", value=1, headers=(("name", "text"),)), "with the headers"),  # type: ignore[arg-type]  # what the test is about
        (Record(key="a", value=1, headers=(3,)), "with the headers"),  # type: ignore[arg-type]  # what the test is about
    ],
)
def test_what_is_no_fit_record_is_refused_where_it_is_yielded(yielded: Any, said: str) -> None:
    with pytest.raises(ProcessingError, match=said) as caught:
        made(lambda ctx, number: iter([number, yielded]), ("a", 1, 0))
    assert (caught.value.topic, caught.value.offset, caught.value.node) == ("numbers", 0, "body")


def test_an_exception_names_the_record_and_the_node() -> None:
    def body(ctx: Context, number: Record[str, int]) -> Yielded:
        yield number
        if number.value == 13:
            raise KeyError(number.key)

    with pytest.raises(ProcessingError, match="KeyError: 'b'") as caught:
        made(body, ("a", 1, 0), ("b", 13, 0), ("c", 1, 0))
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("numbers", 0, 1)
    assert caught.value.node == "body"
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_record_that_is_left_out_leaves_no_trace_in_a_store() -> None:
    job = Job("lenient", on_error="skip")
    totals = job.store("totals", key=str, value=int)

    @numbers(job).process(stores=[totals])
    def summed(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        total = (ctx.store(totals).get(number.key) or 0) + number.value
        ctx.store(totals).put(number.key, total)
        if total > 10:
            raise ValueError(total)
        yield number.with_value(total)

    summed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 4, 0), ("a", 5, 0))
        driver.commit()
        send(driver, ("a", 3, 0), ("a", 1, 0), ("a", 9, 0))
        driver.commit()
        assert driver.sent("out") == [("a", 4), ("a", 9), ("a", 10)]
        assert driver.store(totals) == {"a": 10}


def test_a_dead_letter_is_the_record_that_the_function_failed_on_with_the_state_there_was() -> None:
    """Tried alone on an empty store, as the search for bad records does, other records would fail."""
    job = Job("letters", on_error="dead_letter")
    known = job.store("known", key=str, value=int)

    @numbers(job).process(stores=[known])
    def checked(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        if number.value > 0 and ctx.store(known).get(number.key) is None:
            raise LookupError(number.key)
        ctx.store(known).put(number.key, number.value)
        yield number

    checked.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 0, 0), ("a", 1, 0), ("b", 2, 0), ("a", 3, 0))
        driver.commit()
        assert driver.sent("out") == [("a", 0), ("a", 1), ("a", 3)]
        assert driver.sent("letters.dead_letter") == [("b", 2)]


def test_a_result_of_a_table_that_a_process_fails_on_stops_the_run_whatever_the_policy() -> None:
    """Which result it was cannot be found out: tried alone, on an empty store, others would fail."""
    job = Job("results", on_error="skip")
    seen = job.store("seen", key=str, value=int)
    windows = numbers(job).group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))

    @windows.count(name="counts").to_stream().process(stores=[seen])
    def checked(ctx: Context, count: Record[str, int]) -> Iterator[Record[str, int]]:
        if count.key != "first" and ctx.store(seen).get("first") is None:
            raise LookupError(count.key)
        ctx.store(seen).put(count.key, count.value)
        yield count

    checked.to("out")
    with TestDriver(job) as driver:
        send(driver, ("first", 1, 0), ("second", 1, 1_000))
        driver.end()
        assert driver.sent("out") == [("first", 1), ("second", 1)]
    with TestDriver(job) as driver:
        send(driver, ("second", 1, 0))
        with pytest.raises(ProcessingError, match="LookupError: second"):
            driver.end()


def test_what_is_yielded_goes_on_as_columns_where_its_annotation_says_its_fields() -> None:
    job = Job("folds")

    @numbers(job).process
    def spread(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, Amount]]:
        yield number.with_value(Amount(number.value))

    lasts = spread.group_by_key().agg({"last": agg.last("value"), "sum": agg.sum("value")}, name="lasts")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1), ("a", 2, 2), ("b", 3, 3))
        driver.commit()
        assert driver.table(lasts) == {"a": {"last": 2, "sum": 3}, "b": {"last": 3, "sum": 3}}


def test_rows_of_one_record_whose_timestamps_go_back_keep_their_order() -> None:
    job = Job("folds")

    @numbers(job).process
    def spread(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, Amount]]:
        for value, stamp in ((1, 5), (2, 9), (3, 5), (4, 9)):
            yield Record(key=number.key, value=Amount(value), timestamp_ms=stamp)

    how = {"first": agg.first("value"), "last": agg.last("value"), "all": agg.collect("value")}
    lasts = spread.group_by_key().agg(how, name="lasts")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1))
        driver.commit()
        assert driver.table(lasts) == {"a": {"first": 1, "last": 4, "all": [1, 3, 2, 4]}}
