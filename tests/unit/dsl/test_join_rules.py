"""What cannot be joined, and what a job says of its joins."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from receipts_job import receipt, receipts

from streamkit import Job, Table, Tumbling
from streamkit.errors import DefinitionError, TopologyError
from streamkit.testing import TestDriver
from streamkit.topology import compile_graph, describe


def lower(order: str) -> str:
    return order.lower()


def looped(job: Job) -> None:
    customers = job.table("customers", key=str, value=str)
    orders = job.stream("orders", key=str, value=str)
    orders.join(customers, receipt, name="by_customer").to("one")
    orders.key_by(lower, name="by_lower").join(customers, receipt, name="by_text").to("other")


def shown(count: int) -> str:
    return str(count)


def looped_over_two(job: Job, *, order: Any = "log") -> None:
    customers = job.table("customers", key=str, value=str)
    orders = job.stream("orders", key=str, value=str)
    orders.join(customers, receipt, order=order, name="by_customer").to("one")
    windows = (
        orders.key_by(lower, name="by_lower").group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))
    )
    counts = windows.count(name="counts").to_stream().map(shown)
    counts.key_by(lower, name="by_count").join(customers, receipt, order=order, name="by_text").to("other")


def of_windows(job: Job) -> Any:
    orders = job.stream("orders", key=str, value=str)
    windows = orders.group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))
    return orders.join(windows.count(name="counts"), lambda order, count: order, name="joined")


def of_other_keys(job: Job) -> None:
    customers: Table[Any, str] = job.table("customers", key=int, value=str)
    job.stream("orders", key=str, value=str).join(customers, receipt)


def of_no_keys(job: Job) -> None:
    customers: Table[Any, str] = job.table("customers", key=bytes, value=str)
    job.stream("orders", value=str).join(customers, receipt)


def of_another_job(job: Job) -> None:
    job.stream("orders", key=str, value=str).join(Job("other").table("customers", key=str, value=str), receipt)


def of_no_order(job: Job) -> None:
    customers = job.table("customers", key=str, value=str)
    job.stream("orders", key=str, value=str).join(customers, receipt, order="time")


def of_facts(job: Job) -> None:
    customers: Any = job.table("customers", key=str, value=str)
    customers.to_stream()


def without_keys(job: Job) -> None:
    job.table("customers", key=None, value=str)


def compiled(define: Callable[[Job], Any]) -> None:
    job = Job("refused")
    define(job)
    compile_graph(job.build())


@pytest.mark.parametrize(
    ("define", "error", "says"),
    [
        (looped, TopologyError, "the shuffle 'by_lower' leads back into the tasks that write it"),
        (looped_over_two, TopologyError, "the shuffle 'by_count' leads back into the tasks that write it"),
        (of_windows, DefinitionError, "its keys are windows"),
        (of_other_keys, DefinitionError, "orders: str, customers: int"),
        (of_no_keys, DefinitionError, "orders: bytes | None, customers: bytes"),
        (of_another_job, DefinitionError, "belongs to another job"),
        (of_no_order, DefinitionError, "order='time' of join"),
        (of_facts, DefinitionError, "cannot become a stream"),
        (without_keys, DefinitionError, "has no type of keys"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_its_reason(
    define: Callable[[Job], Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        compiled(define)
    assert says in str(caught.value)


def test_a_shuffle_may_lead_back_in_the_order_of_arrival() -> None:
    compiled(lambda job: looped_over_two(job, order="arrival"))


def test_sides_of_different_partition_counts_are_refused_with_the_fix() -> None:
    with pytest.raises(TopologyError) as caught:
        TestDriver(receipts(), partitions={"orders": 3, "customers": 2})
    assert "'customers' has 2 partitions and 'orders' has 3" in str(caught.value)
    assert "same partition count" in str(caught.value)


def test_order_of_arrival_is_said() -> None:
    assert "order arrival" in describe(compile_graph(receipts(order="arrival").build())).to_text()
    assert "order log" in describe(compile_graph(receipts().build())).to_text()


def test_order_of_arrival_takes_what_comes_out_of_a_shuffle() -> None:
    job = Job("arriving")
    customers = job.table("customers", key=str, value=str)
    counts = job.stream("orders", value=str).group_by(lower, name="by_lower", shards=2).count(name="counts")
    customers.join(counts, lambda name, count: f"{name} {count}", order="arrival", name="joined").to("out")
    for customers_count in (2, 3):
        with TestDriver(job, partitions={"customers": customers_count, "orders": 3}) as driver:
            driver.send("customers", "Ann", key="a")
            driver.send("orders", "A", partition=1)
            driver.send("orders", "a", partition=2)
            driver.commit()
            assert dict(driver.sent("out")) == {"a": "Ann 2"}
