"""The coordinator: one outcome a transaction, decided by the latest session only."""

import pytest

from streamkit.broker.coordinator import Coordinator, Decision
from streamkit.broker.coordinator_records import (
    CoordinatorState,
    GroupOffset,
    LogStartMoved,
    OffsetsCommitted,
    ProducerOpened,
    TopicForgotten,
    TouchedPartition,
    TransactionCommitted,
    TransactionKey,
)
from streamkit.broker.protocols import CommittedOffset
from streamkit.errors import CorruptBatchError, ProducerFencedError
from streamkit.log.codec import ControlKind
from streamkit.records import TopicPartition
from streamkit.seams import MemoryFileSystem

PATH = "log/transactions.log"
A0 = TopicPartition("a", 0)


def made(fs: MemoryFileSystem) -> Coordinator:
    coordinator = Coordinator(fs, PATH)
    coordinator.create()
    return coordinator


def loaded(fs: MemoryFileSystem) -> Coordinator:
    coordinator = Coordinator(fs, PATH)
    coordinator.load()
    return coordinator


def committed(epoch: tuple[int, int], number: int = 0, *, offset: int = 1) -> TransactionCommitted:
    return TransactionCommitted(
        producer_id=epoch[0],
        producer_epoch=epoch[1],
        transaction_number=number,
        partitions=[TouchedPartition("a", 0, "id of a", 0)],
        offsets={"g": [GroupOffset("a", 0, offset, "")]},
    )


def test_d9_epochs_grow_over_restarts_and_are_durable_when_given_out() -> None:
    fs = MemoryFileSystem()
    first = made(fs).open_epoch("t")
    second = loaded(fs.crashed()).open_epoch("t")
    assert (second[0], second[1]) == (first[0], first[1] + 1)


def test_d9_a_commit_of_an_older_epoch_is_refused_though_nothing_else_was_decided() -> None:
    coordinator = made(MemoryFileSystem())
    older = coordinator.open_epoch("t")
    coordinator.open_epoch("t")
    decision = Decision()
    with pytest.raises(ProducerFencedError):
        coordinator.commit("t", decision, committed(older))
    assert decision.outcome is None
    assert coordinator.committed("g") == {}


def test_d4_a_transaction_that_was_aborted_cannot_commit_any_more() -> None:
    coordinator = made(MemoryFileSystem())
    epoch = coordinator.open_epoch("t")
    decision = Decision()
    assert coordinator.decide_abort(decision) is ControlKind.ABORT
    with pytest.raises(ProducerFencedError):
        coordinator.commit("t", decision, committed(epoch))


def test_d4_a_transaction_that_committed_cannot_abort_any_more() -> None:
    coordinator = made(MemoryFileSystem())
    epoch = coordinator.open_epoch("t")
    decision = Decision()
    coordinator.commit("t", decision, committed(epoch))
    assert coordinator.decide_abort(decision) is ControlKind.COMMIT
    with pytest.raises(ProducerFencedError):
        coordinator.commit("t", decision, committed(epoch))


def test_producer_ids_are_never_given_out_twice() -> None:
    fs = MemoryFileSystem()
    given: list[int] = []
    for _ in range(3):
        coordinator = loaded(fs) if given else made(fs)
        given += [coordinator.new_producer_id() for _ in range(1500)]
        given.append(coordinator.open_epoch(f"t{len(given)}")[0])
        fs = fs.crashed()
    assert len(set(given)) == len(given)


def test_a_missing_or_empty_transaction_log_is_not_a_new_one() -> None:
    fs = MemoryFileSystem()
    with pytest.raises(CorruptBatchError, match="missing or empty"):
        loaded(fs)
    fs.open(PATH, create=True)
    with pytest.raises(CorruptBatchError, match="missing or empty"):
        loaded(fs)


def test_a_rewrite_adds_up_to_the_same() -> None:
    fs = MemoryFileSystem()
    coordinator = made(fs)
    epoch = coordinator.open_epoch("t")
    coordinator.commit("t", Decision(), committed(epoch, offset=1))
    coordinator.commit_offsets("g", {A0: CommittedOffset(offset=2, metadata="later")})
    coordinator.write(LogStartMoved(topic_id="id of a", partition=0, offset=9))
    coordinator.rewrite()
    fs = fs.crashed()
    again = loaded(fs)
    assert again.committed("g") == {A0: CommittedOffset(offset=2, metadata="later")}
    assert again.log_start("id of a", 0) == 9
    assert list(again.unmarked) == [TransactionKey(*epoch, 0)]
    assert again.open_epoch("t") == (epoch[0], epoch[1] + 1)
    again.rewrite(all_marked=True)
    assert loaded(fs.crashed()).unmarked == {}


def test_a_snapshot_does_not_bring_back_the_offsets_of_a_deleted_topic() -> None:
    state = CoordinatorState()
    for record in (
        ProducerOpened(transactional_id="t", producer_id=0, producer_epoch=0),
        committed((0, 0)),
        OffsetsCommitted(group="g", offsets=[GroupOffset("b", 0, 3, "")]),
        LogStartMoved(topic_id="id of a", partition=0, offset=9),
        TopicForgotten(topic="a", topic_id="id of a"),
    ):
        state.apply(record)
    again = CoordinatorState()
    for record in state.snapshot():
        again.apply(record)
    assert again == state
    assert again.groups == {"g": {TopicPartition("b", 0): CommittedOffset(offset=3)}}
    assert again.log_starts == {}
