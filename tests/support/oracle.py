"""Whether a run of the jobs in `ledger_job` was exactly once: told from what stands in the topics when all is over.

What the driver sent is not trusted: the input topic is the truth, whatever became of a send. Each transaction of a
source task writes its outputs, its changelog with a position, and its offsets. Only that task writes to its partitions
of `echo`, `folds` and the changelog, and a marker ends each transaction there, so a gap in the offsets is the end of
a transaction: the ends in all of them must be at the same inputs.

Kinds of violation: LOSS, DUP, PREFIX (of the input, in order), FOLD (the k-th result is the fold of k inputs), ATOM
(outputs, changelog and offsets of a transaction together), OPEN (a transaction that does not end).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from streamkit.broker import LAST_STABLE, LATEST, Broker
from streamkit.records import TopicPartition
from streamkit.runtime.reading import read_to
from streamkit.state import POSITION_KEY

SHOWN_MAX: Final = 5

Rows = list[tuple[int, bytes, bytes]]
"""Offset, key and value of the committed records of one partition."""


@dataclass(kw_only=True, slots=True)
class History:
    """What was read at the end, by partition."""

    entries: dict[int, Rows]
    echo: dict[int, Rows]
    folds: dict[int, Rows]
    totals: dict[int, Rows]
    positions: dict[int, list[tuple[int, dict[str, Any]]]]
    """Offset and content of every position in the changelog of `folds`."""
    committed: dict[int, int]
    open_partitions: list[str] = field(default_factory=list)
    stateful: bool = True
    """Whether it is the ledger's: of the job `copy` there is only `echo`."""

    @property
    def read_count(self) -> int:
        """How many inputs are in the committed past of the job."""
        return sum(self.committed.values())

    @property
    def complete(self) -> bool:
        """Whether all that was read has come out behind the shuffle too."""
        reached: dict[bytes, int] = {}
        for rows in self.totals.values():
            reached |= {group: orjson.loads(value)["n"] for _, group, value in rows}
        return not self.stateful or sum(reached.values()) == self.read_count


def read_history(broker: Broker, job: str) -> History:
    """Read everything of a job, committed; nothing may be going on."""
    stateful = f"{job}-folds-changelog" in broker.admin.describe_topics()
    changelog = _rows(broker, f"{job}-folds-changelog") if stateful else {}
    positions = {
        partition: [(offset, orjson.loads(value)) for offset, key, value in rows if key == POSITION_KEY]
        for partition, rows in changelog.items()
    }
    committed = broker.group(job).committed()
    return History(
        entries=_rows(broker, f"{job}-entries"),
        echo=_rows(broker, f"{job}-echo"),
        folds=_rows(broker, f"{job}-folds") if stateful else {},
        totals=_rows(broker, f"{job}-totals") if stateful else {},
        positions=positions,
        committed={place.partition: at.offset for place, at in committed.items() if place.topic == f"{job}-entries"},
        open_partitions=open_partitions(broker, job),
        stateful=stateful,
    )


def open_partitions(broker: Broker, job: str) -> list[str]:
    """Return the partitions of a job's topics in which a transaction is open."""
    places = [
        TopicPartition(topic, partition)
        for topic, description in broker.admin.describe_topics().items()
        if topic.startswith(f"{job}-")
        for partition in range(description.partition_count)
    ]
    stable = broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
    latest = broker.admin.list_offsets(dict.fromkeys(places, LATEST))
    return [str(place) for place in places if stable[place] != latest[place]]


def violations(history: History, sent: Iterable[int] = ()) -> list[str]:
    """Return all that is wrong, each with its kind first; `sent` are the numbers of entries that were acknowledged."""
    found = [f"OPEN {place} has an open transaction" for place in history.open_partitions]
    numbers = {orjson.loads(value)["number"] for rows in history.entries.values() for _, _, value in rows}
    lost = sorted(set(sent) - numbers)
    if lost:
        found.append(f"LOSS {len(lost)} acknowledged entries are not in the input: {lost[:SHOWN_MAX]}")
    for partition, rows in history.entries.items():
        found += _echo_violations(partition, rows, history)
        if history.stateful:
            found += _fold_violations(partition, rows, history)
            found += _atom_violations(partition, rows, history)
    return found + (_total_violations(history) if history.stateful else [])


def kinds(found: Iterable[str]) -> set[str]:
    """Return the kinds of some violations."""
    return {one.partition(" ")[0] for one in found}


def _echo_violations(partition: int, entries: Rows, history: History) -> list[str]:
    wanted = [(key, value) for _, key, value in entries[: history.committed.get(partition, 0)]]
    echoed = [(key, value) for _, key, value in history.echo[partition]]
    if echoed == wanted:
        return []
    counted, due = Counter(echoed), Counter(wanted)
    lost, extra = due - counted, counted - due
    found = []
    if lost:
        found.append(f"LOSS {lost.total()} of {len(wanted)} are not in echo-{partition}: {_shown(lost)}")
    if extra:
        found.append(f"DUP {extra.total()} too many in echo-{partition}: {_shown(extra)}")
    if not found:
        found.append(f"PREFIX echo-{partition} is not in the order of the input")
    return found


def _fold_violations(partition: int, entries: Rows, history: History) -> list[str]:
    """Each update of a key is the fold of as many of its entries as it says, and they grow."""
    expected = _folds(entries[: history.committed.get(partition, 0)])
    found, reached = [], dict[bytes, int]()
    for offset, key, value in history.folds[partition]:
        row = orjson.loads(value)
        folds = expected.get(key, [])
        if not 1 <= row["n"] <= len(folds) or folds[row["n"] - 1] != row:
            found.append(f"FOLD folds-{partition} at {offset}: {key!r} is {value!r}, not a fold of its entries")
        elif row["n"] <= reached.get(key, 0):
            found.append(f"DUP folds-{partition} at {offset}: {key!r} comes to {row['n']} again")
        reached[key] = row["n"]
    behind = [key for key, folds in expected.items() if reached.get(key) != len(folds)]
    if behind:
        found.append(f"LOSS folds-{partition}: {len(behind)} keys are behind, such as {behind[0]!r}")
    return found[:SHOWN_MAX]


def _atom_violations(partition: int, entries: Rows, history: History) -> list[str]:
    """Outputs, changelog and offsets were cut at the same inputs."""
    positions = [position for _, position in history.positions.get(partition, [])]
    found = []
    numbers = [position["txn"] for position in positions]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"ATOM the changelog of partition {partition} has the transactions {_jumps(numbers)}")
    cuts = [position["in"][0][2] for position in positions]
    if history.committed.get(partition, 0) != (cuts[-1] if cuts else 0):
        found.append(
            f"ATOM the committed offset of partition {partition} is {history.committed.get(partition)}, "
            f"its changelog is at {cuts[-1:]}"
        )
    wanted = [cut for before, cut in zip([0, *cuts], cuts, strict=False) if cut != before]
    ends = _run_ends([offset for offset, _, _ in history.echo[partition]])
    if ends != wanted:
        found.append(
            f"ATOM the transactions of echo-{partition} end at {sorted(set(ends) ^ set(wanted))[:SHOWN_MAX]} "
            f"or not, unlike those of the changelog"
        )
    before = 0
    for cut, updates in zip(wanted, _runs(history.folds[partition]), strict=False):
        touched = {key for _, key, _ in entries[before:cut]}
        if {key for _, key, _ in updates} != touched:
            found.append(f"ATOM the updates of folds-{partition} for the inputs {before} to {cut} are not those keys'")
            break
        before = cut
    return found


def _total_violations(history: History) -> list[str]:
    """The same as for folds, for the results behind the shuffle; each group is in one partition of the input."""
    by_group = defaultdict[bytes, Rows](list)
    for partition, rows in history.entries.items():
        for offset, _, value in rows[: history.committed.get(partition, 0)]:
            group = orjson.loads(value)["group"].encode()
            by_group[group].append((offset, group, value))
    expected = {group: _folds(rows)[group] for group, rows in by_group.items()}
    found, reached = [], dict[bytes, int]()
    for partition, rows in history.totals.items():
        for offset, group, value in rows:
            row = orjson.loads(value)
            folds = expected.get(group, [])
            fits = 1 <= row["n"] <= len(folds) and {**folds[row["n"] - 1], "last": None} == {**row, "last": None}
            if not fits:
                found.append(f"FOLD totals-{partition} at {offset}: {group!r} is {value!r}, not a fold of its entries")
            elif row["n"] <= reached.get(group, 0):
                found.append(f"DUP totals-{partition} at {offset}: {group!r} comes to {row['n']} again")
            reached[group] = row["n"]
    behind = [group for group, folds in expected.items() if reached.get(group) != len(folds)]
    if behind:
        found.append(f"LOSS totals: {len(behind)} groups are behind, such as {behind[0]!r}")
    return found[:SHOWN_MAX]


def _folds(rows: Rows) -> dict[bytes, list[dict[str, int]]]:
    """Return all folds of each key's rows, that of the first one first."""
    folds = defaultdict[bytes, list[dict[str, int]]](list)
    for _, key, value in rows:
        entry = orjson.loads(value)
        amount = entry["amount"]
        before = folds[key][-1] if folds[key] else {"n": 0, "sum": 0, "low": amount, "high": amount}
        folds[key].append(
            {
                "n": before["n"] + 1,
                "sum": before["sum"] + amount,
                "low": min(before["low"], amount),
                "high": max(before["high"], amount),
                "last": entry["number"],
            }
        )
    return folds


def _runs(rows: Rows) -> list[Rows]:
    """Cut rows where offsets leave a gap."""
    runs: list[Rows] = []
    for row in rows:
        if runs and runs[-1][-1][0] + 1 == row[0]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _run_ends(offsets: Sequence[int]) -> list[int]:
    """Return how many offsets there are up to each gap, and up to the end."""
    followed = zip(offsets, [*offsets[1:], -1], strict=True)
    return [count for count, (offset, after) in enumerate(followed, 1) if after != offset + 1]


def _jumps(numbers: list[int]) -> str:
    jumps = [f"{after} after {before}" for before, after in zip([0, *numbers], numbers, strict=False)]
    return ", ".join(one for one, after in zip(jumps, numbers, strict=True) if one != f"{after} after {after - 1}")


def _shown(counted: Mapping[tuple[bytes, bytes], int]) -> str:
    return ", ".join(value.decode() for _, value in list(counted)[:SHOWN_MAX])


def _rows(broker: Broker, topic: str) -> dict[int, Rows]:
    fetcher = broker.fetcher("read_committed")
    rows: dict[int, Rows] = {}
    try:
        for partition in range(broker.admin.describe_topics()[topic].partition_count):
            rows[partition] = [
                (offset, key or b"", value or b"")
                for records in read_to(broker, fetcher, TopicPartition(topic, partition), None)
                for offset, key, value in zip(records.offsets.tolist(), records.keys, records.values, strict=True)
            ]
    finally:
        fetcher.close()
    return rows
