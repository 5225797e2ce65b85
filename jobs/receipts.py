"""Receipts: each order with its customer, and what each customer has spent."""

import msgspec

from streamkit import Job


class Order(msgspec.Struct):
    """One order, under the id of its customer; `at` is event time in ms since the Unix epoch."""

    item: str
    cents: int
    at: int


class Customer(msgspec.Struct):
    """What is known of a customer, since `at`."""

    name: str
    at: int


class Receipt(msgspec.Struct):
    """An order with its customer."""

    item: str
    cents: int
    to: str


job = Job("receipts")
customers = job.table("customers", key=str, value=Customer, timestamp="at")
orders = job.stream("orders", key=str, value=Order, timestamp="at")


@orders.join(customers)
def receipts(order: Order, customer: Customer) -> Receipt:
    """Look the customer up as it was at the time of the order."""
    return Receipt(order.item, order.cents, to=customer.name)


@orders.group_by_key().aggregate(initial=int)
def spent(total: int, order: Order) -> int:
    """Add one order."""
    return total + order.cents


@customers.join(spent)
def accounts(customer: Customer, total: int) -> dict[str, str | int]:
    """Bring the two tables together: a change of either is a change of the account."""
    return {"name": customer.name, "cents": total}


receipts.to("receipts")
accounts.to("accounts")
