"""Tables of topics and joins: a join has the key of its sides, and what its function returns."""

from typing import Any, assert_type

import msgspec

from streamkit import Job, Stream, Table
from streamkit.testing import TestDriver


class Order(msgspec.Struct):
    item: str
    cents: int


class Customer(msgspec.Struct):
    name: str


class Receipt(msgspec.Struct):
    item: str
    to: str


job = Job("receipts")
orders = job.stream("orders", key=str, value=Order)
customers = job.table("customers", key=str, value=Customer)
assert_type(customers, Table[str, Customer])
assert_type(job.table("untyped", key=int), Table[int, Any])


@orders.join(customers)
def receipts(order: Order, customer: Customer) -> Receipt:
    return Receipt(order.item, to=customer.name)


assert_type(receipts, Stream[str, Receipt])


@orders.join(customers, order="arrival", name="at_once")
def soon(order: Order, customer: Customer) -> str:
    return customer.name


assert_type(soon, Stream[str, str])
assert_type(orders.join(customers, lambda order, customer: order.cents, name="cents"), Stream[str, int])


@orders.group_by_key().aggregate(initial=int)
def spent(total: int, order: Order) -> int:
    return total + order.cents


@customers.join(spent)
def accounts(customer: Customer, total: int) -> tuple[str, int]:
    return customer.name, total


assert_type(accounts, Table[str, tuple[str, int]])
assert_type(customers.join(spent, lambda customer, total: total, name="totals"), Table[str, int])
assert_type(orders.join(accounts, lambda order, account: account[0], name="names"), Stream[str, str])


def test_driver() -> None:
    with TestDriver(job) as driver:
        assert_type(driver.table(accounts), dict[str, tuple[str, int]])
