"""Sales that wait, behind their shuffle, for prices: a stream joined with a table in the order of the log."""

from streamkit import Job

Row = dict[str, int]


def shop_of(row: Row) -> str:
    return str(row["shop"])


def priced(row: Row, price: Row) -> Row:
    return {**row, "price": price["price"]}


def sales_job() -> Job:
    job = Job("sales")
    sales = job.stream("sales", key=str, value=Row, timestamp="ts")
    prices = job.table("prices", key=str, value=Row, timestamp="ts")
    sales.key_by(shop_of, shards=1, name="by_shop").join(prices, priced, name="priced").to("out")
    return job
