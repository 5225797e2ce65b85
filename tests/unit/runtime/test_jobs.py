"""The sample jobs, through the test driver."""

from datetime import timedelta

from jobs import hot_auctions, receipts, sensor_means, word_count
from streamkit.testing import TestDriver


def bid(auction: int, price: int, ts: int) -> dict[str, object]:
    return {"auction": auction, "bidder": 1, "price": price, "channel": "web", "url": "https://x", "ts": ts}


def test_words_are_counted_across_lines() -> None:
    with TestDriver(word_count.job) as driver:
        driver.send("lines", "to be or not")
        driver.send("lines", "to be")
        driver.commit()
        assert driver.table(word_count.counts) == {"to": 2, "be": 2, "or": 1, "not": 1}
        assert dict(driver.sent("word_counts"))["be"] == 2


def test_words_are_counted_across_partitions_and_commits() -> None:
    with TestDriver(word_count.job, partitions=3) as driver:
        for partition, line in enumerate(["To be", "or not", "to BE"]):
            driver.send("lines", line, partition=partition)
            driver.commit()
        assert driver.table("counts") == {"to": 2, "be": 2, "or": 1, "not": 1}


def test_the_combiner_saves_shuffle_rows() -> None:
    """Sixty words of three kinds in one commit are three rows of the shuffle."""
    with TestDriver(word_count.job) as driver:
        for _ in range(10):
            driver.send("lines", "a b c a b c")
        driver.process()
        driver.commit()
        assert driver.table("counts") == {"a": 20, "b": 20, "c": 20}
        assert driver.shuffle_rows() == (60, 3)


def test_an_auction_is_published_once_when_its_window_closes() -> None:
    with TestDriver(hot_auctions.job, partitions=2) as driver:
        driver.send("bids", bid(7, 100, 1_000), partition=0)
        driver.send("bids", bid(7, 300, 9_999), partition=1)
        driver.send("bids", bid(8, 50, 2_000), partition=0)
        driver.commit()
        assert driver.sent("hot_auctions") == []
        driver.send("bids", bid(9, 1, 10_000), partition=0)
        driver.commit()
        assert driver.sent("hot_auctions") == [], "the other partition has not reached the window's end"
        driver.send("bids", bid(9, 1, 12_000), partition=1)
        driver.commit()
        window = {"window_start": 0, "window_end": 10_000}
        assert sorted(driver.sent_records("hot_auctions")) == [
            (7, window | {"bids": 2, "best": 300}, 9_999),
            (8, window | {"bids": 1, "best": 50}, 9_999),
        ]
        driver.end()
        assert len(driver.sent("hot_auctions")) == 3


def test_a_mean_is_published_when_its_minute_and_grace_are_over() -> None:
    with TestDriver(sensor_means.job) as driver:
        for celsius, at in ((20.0, 1_000), (22.0, 59_999), (5.0, 60_000), (27.0, 30_000)):
            driver.send("readings", {"celsius": celsius, "at": at}, key="s1")
        driver.commit()
        assert driver.sent("sensor_means") == []
        driver.send("readings", {"celsius": 1.0, "at": 70_000}, key="s1")
        driver.send("readings", {"celsius": 99.0, "at": 59_000}, key="s1")
        driver.commit()
        assert driver.sent("sensor_means") == [("s1", {"window_start": 0, "window_end": 60_000, "value": 23.0})]
        assert driver.sent("sensor_late") == [("s1", {"celsius": 99.0, "at": 59_000})]


def test_the_driver_commits_when_the_fake_interval_has_passed() -> None:
    with TestDriver(word_count.job, commit_interval=timedelta(seconds=1)) as driver:
        driver.send("lines", "to be")
        driver.advance(timedelta(milliseconds=400))
        assert driver.sent("word_counts") == []
        driver.advance(timedelta(milliseconds=600))
        assert dict(driver.sent("word_counts")) == {"to": 1, "be": 1}


def test_an_order_finds_its_customer_as_it_was_and_an_account_as_it_is() -> None:
    with TestDriver(receipts.job, partitions=2) as driver:
        for topic, key, value in (
            ("customers", "a", {"name": "Ann", "at": 10}),
            ("orders", "a", {"item": "book", "cents": 1200, "at": 20}),
            ("customers", "a", {"name": "Ann Lee", "at": 30}),
            ("orders", "b", {"item": "cup", "cents": 700, "at": 40}),
            ("orders", "a", {"item": "pen", "cents": 300, "at": 50}),
        ):
            driver.send(topic, value, key=key)
            driver.process()
        driver.end()
        assert driver.sent("receipts") == [
            ("a", {"item": "book", "cents": 1200, "to": "Ann"}),
            ("a", {"item": "pen", "cents": 300, "to": "Ann Lee"}),
        ]
        assert driver.table(receipts.accounts) == {"a": {"name": "Ann Lee", "cents": 1500}}
