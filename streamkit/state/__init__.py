"""Local state: one ordered store of bytes for each task, changed by whole commits.

`protocols` says what a store is; `rocksdb` keeps one on disk, `memory` in memory. `keys` lays out the keys, `digest`
sums up the contents, `ranges` by ranges of keys, `entries` what a changelog got; `ordering` sorts that for a table.
`directory` says whose files they are.
"""

from streamkit.state.digest import Digest
from streamkit.state.directory import StateDirectory
from streamkit.state.entries import EntriesDigest
from streamkit.state.keys import (
    POSITION_KEY,
    split_window_key,
    store_key,
    store_range,
    window_key,
    window_keys,
    window_range,
)
from streamkit.state.memory import MemoryStore
from streamkit.state.protocols import Changes, StateStore
from streamkit.state.rocksdb import RocksDBResources, RocksDBStore

__all__ = [
    "POSITION_KEY",
    "Changes",
    "Digest",
    "EntriesDigest",
    "MemoryStore",
    "RocksDBResources",
    "RocksDBStore",
    "StateDirectory",
    "StateStore",
    "split_window_key",
    "store_key",
    "store_range",
    "window_key",
    "window_keys",
    "window_range",
]
