"""What `job.store`, `process` and `punctuate` refuse, at their own line."""

from datetime import timedelta
from typing import Any

import pytest

from streamkit import Context, Job, Record, Store, Stream
from streamkit.errors import DefinitionError, DuplicateNameError, FrozenJobError, UnnamedStateError

HOUR = timedelta(hours=1)


def same(ctx: Context, number: Record[str, int]) -> list[Record[str, int]]:
    return [number]


def every_hour(ctx: Context, at_ms: int) -> None:
    """Do nothing."""


@pytest.fixture
def job() -> Job:
    return Job("job")


@pytest.fixture
def rows(job: Job) -> Stream[str, int]:
    return job.stream("numbers", key=str, value=int)


@pytest.fixture
def kept(job: Job) -> Store[str, int]:
    return job.store("kept", key=str, value=int)


def test_a_process_bears_the_name_of_its_function_which_stays_what_it_was(rows: Stream[str, int]) -> None:
    processed = rows.process(same)
    assert (processed.name, processed.fn) == ("same", same)
    assert processed.punctuate(every_hour, every=HOUR) is every_hour
    assert processed.punctuate(every=HOUR)(every_hour) is every_hour


def test_a_store_and_a_node_have_different_names(job: Job, rows: Stream[str, int], kept: Store[str, int]) -> None:
    for name in ("kept", "numbers"):
        with pytest.raises(DuplicateNameError, match=f"named '{name}'"):
            job.store(name, key=str, value=int)
    with pytest.raises(DuplicateNameError, match="has a store named 'kept' already"):
        rows.process(same, name="kept")
    with pytest.raises(DuplicateNameError, match="has a store named 'kept' already"):
        rows.group_by_key().count(name="kept")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "no name", "key": str, "value": int}, "changelog topic of 'no name'"),
        ({"name": "sets", "key": set[str], "value": int}, "which cannot be a key"),
        ({"name": "objects", "key": str, "value": object()}, "cannot be read from JSON"),
        ({"name": "objects", "key": object(), "value": int}, "cannot be read from JSON"),
    ],
)
def test_a_store_that_cannot_be_kept_is_refused(job: Job, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        job.store(**arguments)


def test_stores_are_those_of_the_job_each_once(rows: Stream[str, int], kept: Store[str, int]) -> None:
    other = Job("other").store("kept", key=str, value=int)
    with pytest.raises(DefinitionError, match="the store 'kept' of 'same' belongs to another job"):
        rows.process(same, stores=[other])
    with pytest.raises(DefinitionError, match="names a store twice"):
        rows.process(same, stores=[kept, kept])
    with pytest.raises(DefinitionError, match=r"takes what job\.store\(\) returned, not 'kept'"):
        rows.process(same, stores=["kept"])  # type: ignore[list-item]  # what the test is about


async def later(ctx: Context, number: Record[str, int]) -> None:
    """Come later."""


def test_what_is_no_plain_named_function_is_refused(rows: Stream[str, int]) -> None:
    with pytest.raises(UnnamedStateError, match="process needs a durable name"):
        rows.process(lambda ctx, number: [number])
    with pytest.raises(DefinitionError, match="process takes a function"):
        rows.process(3)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(DefinitionError, match="process got the async function 'later'"):
        rows.process(later)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(DefinitionError, match="order='random' of 'same'"):
        rows.process(same, order="random")  # type: ignore[call-overload]  # what the test is about


def test_a_key_that_may_change_is_of_a_type_that_can_be_one(rows: Stream[str, int]) -> None:
    def by_set(ctx: Context, number: Record[str, int]) -> list[Record[set[int], int]]:
        return []

    with pytest.raises(DefinitionError, match="the keys of 'by_set' are of type"):
        rows.process(by_set, rekeys=True)


def test_punctuation_by_the_clock_is_refused_with_the_reason(rows: Stream[str, int]) -> None:
    with pytest.raises(DefinitionError, match='on="wall_clock" is not supported') as caught:
        rows.process(same).punctuate(every_hour, every=HOUR, on="wall_clock")
    assert "no replay gives the same" in str(caught.value)


def test_a_punctuation_has_a_period_a_plain_function_and_a_process(rows: Stream[str, int]) -> None:
    processed = rows.process(same)
    with pytest.raises(DefinitionError, match="is shorter than 1 ms"):
        processed.punctuate(every_hour, every=timedelta(microseconds=999))
    with pytest.raises(DefinitionError, match="on='sometimes' of 'every_hour'"):
        processed.punctuate(every_hour, every=HOUR, on="sometimes")  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(DefinitionError, match="punctuate got the async function"):
        processed.punctuate(later, every=HOUR)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(DefinitionError, match="'kept' is no process"):
        processed.filter(bool, name="kept").punctuate(every_hour, every=HOUR)


def test_a_job_that_was_built_takes_neither_stores_nor_punctuations(job: Job, rows: Stream[str, int]) -> None:
    processed = rows.process(same)
    processed.to("out")
    job.build()
    with pytest.raises(FrozenJobError, match="'same' comes too late"):
        processed.punctuate(every_hour, every=HOUR)
    with pytest.raises(FrozenJobError, match="'kept' comes too late"):
        job.store("kept", key=str, value=int)
