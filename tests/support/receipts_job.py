"""Receipts: orders, each with the name of its customer, which is a table."""

from typing import Any

from streamkit import Job
from streamkit.graph.nodes import Order

Row = tuple[str, str | None, Any]
"""Topic, key and value of a record."""


def receipt(order: str, customer: str) -> str:
    return f"{order} for {customer}"


def receipts(on_error: Any = "fail", order: Order = "log") -> Job:
    job = Job("receipts", on_error=on_error)
    customers = job.table("customers", key=str, value=str)
    job.stream("orders", key=str, value=str).join(customers, receipt, order=order).to("receipts")
    return job
