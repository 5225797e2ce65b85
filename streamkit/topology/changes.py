"""What a change of a job means for the state that it has: safe, needs a replay, or orphans state. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from streamkit.topology.lock import Lock, LockedJoin, LockedShuffle, LockedStore, LockedTask, LockedWindow

__all__ = ["Change", "ChangeKind", "changes_between"]

ChangeKind: TypeAlias = Literal["safe", "needs replay", "orphans state"]

_WORST_FIRST: Final[tuple[ChangeKind, ...]] = ("orphans state", "needs replay", "safe")
_REPLAY: Final = "replay the job, or give the job a new name"
_DRAIN: Final = "end the job as it was with run --bounded before the change: then all that was sent is read"
_NOTHING: Final = ""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between a lock and the job.

    Args:
        kind: `safe`: the job goes on from what it has. `needs replay`: its state would not be what the changed job
            makes of its input, or the run would be refused. `orphans state`: a store, or rows on their way to one,
            would stay behind under a name that nothing reads.
        about: The nodes and stores concerned.
        what: What is different, and what follows from it.
        do: What to do about it; empty if nothing is to be done.
    """

    kind: ChangeKind
    about: tuple[str, ...]
    what: str
    do: str = _NOTHING

    def to_text(self) -> str:
        """Return it in one line, or two."""
        return f"{self.kind}: {self.what}" + (f"\n    {self.do}" if self.do else "")


def changes_between(locked: Lock, job: Lock) -> tuple[Change, ...]:
    """Return what is different, the worst first; nothing if the two are equal."""
    found = list(_Comparison(locked, job).changes())
    return tuple(sorted(found, key=lambda change: _WORST_FIRST.index(change.kind)))


class _Comparison:
    def __init__(self, locked: Lock, job: Lock) -> None:
        self._locked, self._job = locked, job
        self._new_shuffles = _renamed(locked.shuffles, job.shuffles, _alike)
        self._new_stores = _renamed(locked.stores, job.stores, self._stores_alike)

    def changes(self) -> Iterator[Change]:
        if self._locked.job != self._job.job:
            yield _orphans(
                (*self._locked.stores,),
                f"the job {self._locked.job!r} is called {self._job.job!r}: its offsets, stores and internal topics "
                "stay behind, and it reads everything again",
                f'Job("{self._locked.job}") keeps them; to start over, delete the lock and write it anew',
            )
            return
        yield from self._stores()
        yield from self._shuffles()
        yield from self._tasks()
        yield from self._sources()
        yield from self._joins()
        yield from self._rest()

    def _stores_alike(self, one: LockedStore, other: LockedStore) -> bool:
        """Whether two stores differ by their names alone, the names of their shuffles left aside."""
        same_place = self._shuffle_now(one.shuffle) == other.shuffle
        return same_place and _but_shuffle(one) == _but_shuffle(other)

    def _shuffle_now(self, name: str | None) -> str | None:
        return name if name is None else self._new_shuffles.get(name, name)

    def _stores(self) -> Iterator[Change]:
        for name, was in self._locked.stores.items():
            changelog = f"{self._job.job}-{name}-changelog"
            if name in self._new_stores:
                now = self._new_stores[name]
                yield _orphans(
                    (name, now),
                    f"the store {name!r} is called {now!r}: it starts empty, and {changelog} stays behind",
                    f'name="{name}" keeps what it holds',
                )
            elif name not in self._job.stores:
                yield _orphans(
                    (name,),
                    f"the store {name!r} is gone: nothing reads {changelog} any more",
                    f"if that is meant, delete {changelog}; a store that was renamed keeps its contents with "
                    f'name="{name}"',
                )
            else:
                yield from self._store(name, was, self._job.stores[name])
        for name in self._job.stores.keys() - self._locked.stores.keys() - set(self._new_stores.values()):
            yield self._added(name, self._job.stores[name])

    def _added(self, name: str, store: LockedStore) -> Change:
        read = [topic for topic in store.sources if topic in self._locked.sources]
        if not read:
            return _safe((name,), f"the store {name!r} is new, and so are its sources: it reads them from their start")
        what = f"the store {name!r} is new: it would begin in the middle of {', '.join(read)}"
        return _needs_replay((name, *read), what)

    def _store(self, name: str, was: LockedStore, now: LockedStore) -> Iterator[Change]:
        for field, before, after in (
            ("made by", was.kind, now.kind),
            ("keyed by", was.key, now.key),
            ("of", was.value, now.value),
        ):
            if before != after:
                yield _needs_replay((name,), f"the store {name!r} was {field} {before}, and is to be {field} {after}")
        if was.window != now.window:
            yield _window(name, was.window, now.window)
        if was.emit != now.emit:
            yield _safe((name,), f"the table {name!r} emits {now.emit} results, no longer {was.emit} ones")
        if self._shuffle_now(was.shuffle) != now.shuffle:
            what = f"the keys of the store {name!r} were placed by {_placed(was)}, and are to be by {_placed(now)}"
            yield _needs_replay((name,), what)
        for topic in sorted({*was.sources} - {*now.sources}):
            yield _needs_replay((name, topic), f"the store {name!r} still holds what came from {topic}")
        for topic in sorted({*now.sources} - {*was.sources}):
            if topic in self._locked.sources:
                what = f"the store {name!r} would read {topic} from where the job is, not from its start"
                yield _needs_replay((name, topic), what)

    def _shuffles(self) -> Iterator[Change]:
        for name, was in self._locked.shuffles.items():
            readers = self._behind(self._locked, name)
            if name in self._new_shuffles or name not in self._job.shuffles:
                yield self._gone(name, was, readers)
                continue
            now = self._job.shuffles[name]
            if was.shards != now.shards:
                what = f"the shuffle {name!r} had {was.shards} shards, and is to have {now.shards}: keys change places"
                yield _needs_replay((name, *readers), what)
            if was.whole != now.whole:
                kinds = ("partial results", "rows")
                what = f"the shuffle {name!r} carried {kinds[was.whole]}, and is to carry {kinds[now.whole]}"
                yield _needs_replay((name, *readers), what)
            if was.by != now.by:
                yield _needs_replay((name, *readers), f"the key of {name!r} was {was.by}, and is to be {now.by}")

    def _gone(self, name: str, was: LockedShuffle, readers: list[str]) -> Change:
        new = self._new_shuffles.get(name)
        if new is None:
            what = (
                f"the shuffle {name!r} is gone: rows on their way in {was.topic} would never reach {_listed(readers)}"
            )
            return _orphans((name, *readers), what, _DRAIN)
        what = f"the shuffle {name!r} is called {new!r}: {_listed(readers)} goes on from its place in {was.topic}"
        return _orphans((name, new, *readers), what, f'name="{name}" keeps it, if its key is the same; else {_REPLAY}')

    def _behind(self, lock: Lock, shuffle: str) -> list[str]:
        return [name for name, store in lock.stores.items() if store.shuffle == shuffle]

    def _tasks(self) -> Iterator[Change]:
        """Compare which inputs one task reads, and the numbers that lead the ids of tasks."""
        topics = {
            self._locked.shuffles[old].topic: self._job.shuffles[new].topic for old, new in self._new_shuffles.items()
        }
        was = {
            topics.get(topic, topic): index for index, task in enumerate(self._locked.tasks) for topic in task.inputs
        }
        now = {topic: index for index, task in enumerate(self._job.tasks) for topic in task.inputs}
        for index, task in enumerate(self._job.tasks):
            before = sorted({was[topic] for topic in task.inputs if topic in was})
            if len(before) > 1:
                read = [topic for topic in task.inputs if topic in was]
                what = f"{_listed(read)} were read by tasks of their own, and are to be by one: it has no one position"
                yield _needs_replay((*read, *task.stores), what)
            elif before and before[0] != index:
                yield self._renumbered(before[0], index, task)
        for task in self._locked.tasks:
            inputs = [topics.get(topic, topic) for topic in task.inputs]
            if len({now.get(topic) for topic in inputs}) > 1:
                what = f"{_listed(inputs)} were read by one task, and no longer are: their position is one"
                yield _needs_replay((*inputs, *task.stores), what)

    def _renumbered(self, before: int, now: int, task: LockedTask) -> Change:
        what = f"the tasks {before}_* are called {now}_*"
        written = [name for name in task.shuffles if name in self._locked.shuffles]
        if written:
            readers = [reader for name in written for reader in self._behind(self._job, name)]
            return _needs_replay(
                (*written, *readers),
                f"{what}: what they sent to {_listed(readers)} and nobody has read yet would be refused",
                f"define new sources after those that are there; or {_DRAIN}",
            )
        if task.stores:
            return _safe(
                task.stores, f"{what}: {_listed(task.stores)} is restored from its changelog, which takes time"
            )
        return _safe(task.inputs, what)

    def _sources(self) -> Iterator[Change]:
        for topic in sorted(self._locked.sources.keys() - self._job.sources.keys()):
            yield _safe((topic,), f"{topic} is not read any more; its committed offsets stay")
        for topic in sorted(self._job.sources.keys() - self._locked.sources.keys()):
            yield _safe((topic,), f"{topic} is new, and is read from its start")
        for topic in sorted(self._locked.sources.keys() & self._job.sources.keys()):
            was, now = self._locked.sources[topic], self._job.sources[topic]
            windowed = [name for name, one in self._job.stores.items() if one.window and topic in one.sources]
            if was.timestamp != now.timestamp:
                yield _timed(
                    topic, windowed, f"the timestamp of {topic} was {was.timestamp}, and is to be {now.timestamp}"
                )
            if was.out_of_orderness_ms != now.out_of_orderness_ms:
                grown = now.out_of_orderness_ms > was.out_of_orderness_ms
                yield _timed(
                    topic,
                    windowed if grown else [],
                    f"the out-of-orderness of {topic} was {was.out_of_orderness_ms} ms, and is to be "
                    f"{now.out_of_orderness_ms} ms"
                    + (": closed windows would open again" if grown and windowed else ""),
                )
            for field, before, after in (("keys", was.key, now.key), ("values", was.value, now.value)):
                if before != after:
                    yield _safe((topic,), f"the {field} of {topic} were {before}, and are read as {after} from now on")

    def _joins(self) -> Iterator[Change]:
        was, now = self._locked.joins, self._job.joins
        for name in [*was, *(name for name in now if name not in was)]:
            if name not in was or name not in now:
                yield _safe((name,), _done(name, was, now))
            elif was[name] != now[name]:
                what = f"the join {name!r} was of {_sides(was[name])}, and is to be of {_sides(now[name])}"
                yield _needs_replay((name,), what)

    def _rest(self) -> Iterator[Change]:
        for topic in sorted({*self._locked.sinks} - {*self._job.sinks}):
            yield _safe((topic,), f"{topic} is not written any more")
        for topic in sorted({*self._job.sinks} - {*self._locked.sinks}):
            yield _safe((topic,), f"{topic} is new, and gets what is computed from now on")
        was, now = self._locked.nodes, self._job.nodes
        for name in [*was, *(name for name in now if name not in was)]:
            if was.get(name) != now.get(name):
                yield _safe((name,), _done(name, was, now))


def _renamed(was: Mapping[str, T], now: Mapping[str, T], alike: Callable[[T, T], bool]) -> dict[str, str]:
    """Return the new name of each that is gone and has a like under a new one."""
    free = [name for name in now if name not in was]
    found = {}
    for name, one in was.items():
        new = next((other for other in free if alike(one, now[other])), None) if name not in now else None
        if new is not None:
            free.remove(new)
            found[name] = new
    return found


def _alike(one: LockedShuffle, other: LockedShuffle) -> bool:
    return (one.shards, one.key, one.by, one.whole) == (other.shards, other.key, other.by, other.whole)


def _but_shuffle(store: LockedStore) -> tuple[object, ...]:
    return store.kind, store.key, store.value, store.window, store.emit, store.sources


def _placed(store: LockedStore) -> str:
    return "the source" if store.shuffle is None else f"the shuffle {store.shuffle!r}"


def _window(name: str, was: LockedWindow | None, now: LockedWindow | None) -> Change:
    if was is None or now is None:
        return _needs_replay(
            (name,),
            f"the store {name!r} had {'no ' * (was is None)}windows, and is to have "
            f"{'none' if now is None else 'some'}",
        )
    if was.size_ms != now.size_ms:
        what = f"the windows of {name!r} were of {was.size_ms} ms, and are to be of {now.size_ms} ms"
        return _needs_replay((name,), what)
    if was.advance_ms != now.advance_ms:
        what = f"a window of {name!r} began each {was.advance_ms} ms, and is to begin each {now.advance_ms} ms"
        return _needs_replay((name,), what)
    what = f"the grace of {name!r} was {was.grace_ms} ms, and is to be {now.grace_ms} ms"
    if now.grace_ms < was.grace_ms:
        return _safe((name,), f"{what} from now on")
    return _needs_replay((name,), f"{what}: closed windows would open again")


def _timed(topic: str, windowed: list[str], what: str) -> Change:
    return _needs_replay((topic, *windowed), what) if windowed else _safe((topic,), f"{what} from now on")


def _done(name: str, was: Mapping[str, object], now: Mapping[str, object]) -> str:
    done = "changed" if name in was and name in now else "new" if name in now else "gone"
    return f"the node {name!r} is {done}; what it made before stays as it is"


def _sides(join: LockedJoin) -> str:
    return f"{_listed(join.sides)} by order of {join.order}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) or "any store"


def _orphans(about: tuple[str, ...], what: str, do: str) -> Change:
    return Change(kind="orphans state", about=about, what=what, do=do)


def _needs_replay(about: tuple[str, ...], what: str, do: str = _REPLAY) -> Change:
    return Change(kind="needs replay", about=about, what=what, do=do)


def _safe(about: tuple[str, ...], what: str) -> Change:
    return Change(kind="safe", about=about, what=what)
