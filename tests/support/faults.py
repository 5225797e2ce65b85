"""A broker and stores that fail when they are told to, around real ones."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from streamkit.broker import Admin, Broker, Fetcher, Group, Isolation, Producer
from streamkit.runtime.stores import MemoryStores
from streamkit.state import Changes, MemoryStore, StateStore


class FaultyBroker:
    """Tells `told` of calls of admin, producers, fetchers and groups, before and (`.done`) after them; it may raise."""

    def __init__(self, broker: Broker, told: Callable[[str], None]) -> None:
        self._broker, self.told = broker, told
        self.admin = cast(Admin, _Told(broker.admin, "admin", self))
        self.join, self.close = broker.join, broker.close

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        return cast(Fetcher, _Told(self._broker.fetcher(isolation), "fetcher", self))

    def producer(self, transactional_id: str | None = None) -> Producer:
        self.told("producer")
        kind = "producer" if transactional_id else "publisher"
        return cast(Producer, _Told(self._broker.producer(transactional_id), kind, self))

    def group(self, name: str) -> Group:
        return cast(Group, _Told(self._broker.group(name), "group", self))


class _Told:
    def __init__(self, inner: Any, kind: str, broker: FaultyBroker) -> None:
        self._inner, self._kind, self._broker = inner, kind, broker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._broker.told(f"{self._kind}.{name}")
            result = method(*arguments, **options)
            self._broker.told(f"{self._kind}.{name}.done")
            return result

        return call


class WatchedStore(MemoryStore):
    """Notes what is asked and written; `told` may raise."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told
        self.asked: list[bytes] = []
        self.written: list[bytes] = []
        self.scan_count = self.range_count = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._told("get_many")
        self.asked += keys
        return super().get_many(keys)

    def scan(self, begin: bytes, end: bytes) -> Any:
        self._told("scan")
        self.scan_count += 1
        return super().scan(begin, end)

    def write(self, changes: Changes) -> None:
        self._told("write")
        self.written += changes.values
        self.range_count += len(changes.delete_ranges)
        super().write(changes)

    def close(self) -> None:
        self._told("close")
        super().close()


class WatchedStores(MemoryStores):
    """Opens watched stores, empty each time: what was there is restored from the changelog."""

    def __init__(self, told: Callable[[str], None] = lambda call: None) -> None:
        super().__init__()
        self._told = told
        self.opened: list[WatchedStore] = []
        self.reasons: list[str] = []

    def open(self, task_id: str) -> StateStore:
        self.opened.append(WatchedStore(self._told))
        self.stores[task_id] = self.opened[-1]
        return self.opened[-1]

    def set_aside(self, task_id: str, reason: str) -> None:
        self.reasons.append(reason)
        super().set_aside(task_id, reason)
