"""Files read as a stream, without a job."""

from pathlib import Path
from typing import Any

from streamkit.broker import EARLIEST, LATEST, open_broker
from streamkit.files import input_bindings
from streamkit.files.broker import FileBroker
from streamkit.files.fetcher import FileTopic
from streamkit.files.plan import made_plan
from streamkit.records import TopicPartition

__all__ = ["Row", "file_broker", "rows_of"]

Row = tuple[int, bytes | None, bytes | None]


def file_broker(*paths: Path, key_type: Any = None, value_type: Any = None, whole: bool = False) -> FileBroker:
    """Return a broker whose topic `lines` is the files."""
    inputs = input_bindings([f"lines={path}" for path in paths], ["lines"])
    plan = made_plan("job", inputs, (), ["lines"] if whole else [])
    topic = FileTopic(partitions=plan.inputs["lines"], key_type=key_type, value_type=value_type)
    return FileBroker(open_broker("memory://"), {"lines": topic}, {facts.path: facts for facts in plan.files})


def rows_of(broker: FileBroker, *, bytes_max: int = 1 << 20, begin: int | None = None) -> list[list[Row]]:
    """Return offset, key and value of every record, partition by partition, each from `begin` on or from its start."""
    found = []
    for partition in range(broker.admin.describe_topics()["lines"].partition_count):
        place = TopicPartition("lines", partition)
        position = broker.admin.list_offsets({place: EARLIEST})[place] if begin is None else begin
        end, fetcher = broker.admin.list_offsets({place: LATEST})[place], broker.fetcher()
        rows: list[Row] = []
        while position < end:
            (part,) = fetcher.fetch({place: position}, wait_ms=0, bytes_max=bytes_max)
            if part.in_place is not None:
                records = part.in_place.read()
                assert all(position <= offset < part.next_offset for offset in records.offsets.tolist())
                rows += zip(records.offsets.tolist(), records.keys, records.values, strict=True)
            position = part.next_offset
        assert not fetcher.fetch({place: end}, wait_ms=0, bytes_max=bytes_max)
        fetcher.close()
        found.append(rows)
    return found
