"""Sources end where they are told; nothing is written where they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST, Broker, Fetched, Fetcher, Isolation, open_broker
from streamkit.broker.forwarding import ForwardingBroker
from streamkit.log import DecodedRecords, decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.shadow import ShadowBroker

SOURCE, OTHER = TopicPartition("source", 0), TopicPartition("other", 0)


def filled() -> Broker:
    """Return a broker whose source has two batches: offsets 0 to 3, and 4 to 9."""
    broker = open_broker("memory://")
    broker.admin.create_topic("source", 1)
    producer = broker.producer()
    for values in ([b"%d" % number for number in range(4)], [b"%d" % number for number in range(4, 10)]):
        records = EncodedRecords.to_append(
            timestamps_ms=[7 * int(value) for value in values],
            keys=[b"k" + value for value in values],
            values=values,
            headers=[[("h", value)] for value in values],
        )
        producer.send(SOURCE, records)
        producer.flush()
    producer.close()
    return broker


def read(broker: Broker, position: int) -> tuple[list[tuple[int, bytes | None, bytes | None, int]], int]:
    fetcher, rows = broker.fetcher(), []
    while fetched := fetcher.fetch({SOURCE: position}, wait_ms=0, bytes_max=1):
        records = decode(fetched[0].record_batches, from_offset=position)
        position = fetched[0].next_offset
        rows += list(
            zip(records.offsets.tolist(), records.keys, records.values, records.timestamps_ms.tolist(), strict=True)
        )
        if records.headers is not None:
            assert [headers[0][1] for headers in records.headers] == records.values
    fetcher.close()
    return rows, position


@pytest.mark.parametrize("end", range(11))
@pytest.mark.parametrize("begin", [0, 2, 5])
def test_a_source_is_read_to_its_end_and_no_further(begin: int, end: int) -> None:
    rest = open_broker("memory://")
    rest.admin.create_topic("source", 1)
    shadow = ShadowBroker(filled(), rest, {SOURCE: end})
    rows, position = read(shadow, begin)
    assert rows == [(at, b"k%d" % at, b"%d" % at, 7 * at) for at in range(begin, end)]
    assert position == max(begin, end)


def test_the_end_of_a_source_is_where_it_was_told() -> None:
    rest = open_broker("memory://")
    rest.admin.create_topic("source", 1)
    rest.admin.create_topic("other", 1)
    admin = ShadowBroker(filled(), rest, {SOURCE: 6}).admin
    assert admin.list_offsets({SOURCE: LATEST, OTHER: LATEST}) == {SOURCE: 6, OTHER: 0}
    assert admin.list_offsets({SOURCE: LAST_STABLE}) == {SOURCE: 6}
    assert admin.list_offsets({SOURCE: EARLIEST}) == {SOURCE: 0}
    assert admin.list_offsets({SOURCE: 7 * 5}) == {SOURCE: 5}
    assert admin.list_offsets({SOURCE: 7 * 8}) == {SOURCE: 6}


def test_what_is_made_written_and_removed_is_in_the_rest_alone() -> None:
    sources, rest = filled(), open_broker("memory://")
    rest.admin.create_topic("source", 1)
    shadow = ShadowBroker(sources, rest, {SOURCE: 6})
    shadow.admin.create_topic("other", 1)
    producer = shadow.producer("task")
    producer.begin()
    producer.send(OTHER, EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"x"]))
    producer.commit()
    producer.close()
    shadow.admin.delete_records({OTHER: 1, SOURCE: 3})
    assert set(sources.admin.describe_topics()) == {"source"}
    assert sources.admin.list_offsets({SOURCE: EARLIEST}) == {SOURCE: 0}
    assert rest.admin.list_offsets({OTHER: EARLIEST}) == {OTHER: 1}
    assert shadow.admin.log_id() == rest.admin.log_id() != sources.admin.log_id()
    shadow.admin.delete_topic("other")
    assert set(shadow.admin.describe_topics()) == {"source"}


def test_records_of_a_file_are_read_to_the_end_and_no_further() -> None:
    records = decode(filled().fetcher().fetch({SOURCE: 0}, wait_ms=0, bytes_max=10**6)[0].record_batches)
    fetched = Fetched(
        topic_partition=SOURCE, record_batches=(), next_offset=10, end_offset=10, in_place=InFile(records=records)
    )
    rest = open_broker("memory://")
    rest.admin.create_topic("source", 1)
    shadow = ShadowBroker(OneFetch(filled(), fetched), rest, {SOURCE: 6})
    (found,) = shadow.fetcher().fetch({SOURCE: 0}, wait_ms=0, bytes_max=1)
    assert (found.next_offset, found.end_offset, found.size_bytes) == (6, 6, 50)
    assert found.in_place is not None
    assert found.in_place.read().offsets.tolist() == list(range(6))


@dataclass(frozen=True, slots=True, kw_only=True)
class InFile:
    """Records that lie in place, of 50 bytes."""

    records: DecodedRecords
    size_bytes: int = 50

    def read(self) -> DecodedRecords:
        return self.records


class OneFetch(ForwardingBroker):
    """A broker whose fetchers return one thing."""

    def __init__(self, beneath: Broker, fetched: Fetched) -> None:
        super().__init__(beneath, beneath.admin)
        self._fetched = fetched

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        return _Constant(self._fetched)


class _Constant:
    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        return [self._fetched]

    def close(self) -> None:
        pass
