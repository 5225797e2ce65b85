"""Lines of text and JSON as records."""

import gzip
from pathlib import Path

import pytest
from file_streams import file_broker, rows_of
from hypothesis import given
from hypothesis import strategies as st

from streamkit.broker import EARLIEST, LATEST
from streamkit.errors import FileError, OffsetOutOfRangeError
from streamkit.records import TopicPartition

PLACE = TopicPartition("lines", 0)
TEXT = b"to be\r\nor\n\nnot \r\r\n\xff\nlast"
RECORDS = [(0, b"to be"), (7, b"or"), (10, b""), (11, b"not \r"), (18, b"\xff"), (20, b"last")]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("bytes_max", [1, 5, 8, 1000])
def test_each_line_is_a_record_at_its_byte_and_the_last_needs_no_end(tmp_path: Path, name: str, bytes_max: int) -> None:
    (tmp_path / name).write_bytes(gzip.compress(TEXT) if name.endswith("gz") else TEXT)
    (rows,) = rows_of(file_broker(tmp_path / name), bytes_max=bytes_max)
    assert rows == [(offset, None, value) for offset, value in RECORDS]
    (rest,) = rows_of(file_broker(tmp_path / name), bytes_max=bytes_max, begin=11)
    assert rest == rows[3:], "read again from the middle"


@given(
    lines=st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"")), max_size=8), ended=st.booleans()
)
def test_lines_are_what_produce_makes_of_them(
    lines: list[bytes], ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    path.write_bytes(data)
    (rows,) = rows_of(file_broker(path), bytes_max=4)
    cut = data.split(b"\n")
    expected = [line.removesuffix(b"\r") for line in (cut if cut[-1] else cut[:-1])]
    assert [value for _, _, value in rows] == expected


def test_records_of_files_put_together_have_offsets_that_ascend(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\nb")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"c\n"))
    (tmp_path / "c.txt").write_bytes(b"d\n")
    (rows,) = rows_of(file_broker(*sorted(tmp_path.iterdir()), whole=True))
    assert [value for _, _, value in rows] == [b"a", b"b", b"c", b"d"]
    assert [offset for offset, _, _ in rows[:3]] == [0, 2, 3]


def test_records_bear_the_time_when_the_file_was_modified(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\nb\n")
    (part,) = file_broker(tmp_path / "a.txt").fetcher().fetch({PLACE: 0}, wait_ms=0, bytes_max=100)
    assert part.in_place is not None
    records = part.in_place.read()
    assert records.timestamps_ms.tolist() == [(tmp_path / "a.txt").stat().st_mtime_ns // 1_000_000] * 2
    assert records.headers is None
    assert (part.next_offset, part.end_offset, part.size_bytes, len(records.below(2))) == (4, 4, 4, 1)


def test_keys_of_json_are_the_field_key_where_the_source_declares_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"key":"a","n":1}\n{"n":2,"key":7}\n{"n":3}\nno json\n{"key":["b",1]}\n')
    assert {key for _, key, _ in rows_of(file_broker(path))[0]} == {None}
    (rows,) = rows_of(file_broker(path, key_type=str))
    assert [key for _, key, _ in rows] == [b"a", b"7", None, None, b'["b",1]']
    assert rows[0][2] == b'{"key":"a","n":1}', "the line stays as it stands"
    (part,) = file_broker(path, key_type=str).fetcher().fetch({PLACE: 0}, wait_ms=0, bytes_max=1000)
    assert part.in_place is not None
    for end_offset, keys in ((100, [b"a", b"7", None, None, b'["b",1]']), (30, [b"a", b"7"])):
        assert part.in_place.read().below(end_offset).keys == keys, "what lies below an offset has its keys"


def test_positions_outside_of_a_partition_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\nb\n")
    broker = file_broker(tmp_path / "a.txt")
    assert broker.admin.list_offsets({PLACE: EARLIEST}) == {PLACE: 0}
    assert broker.admin.list_offsets({PLACE: LATEST}) == {PLACE: 4}
    for position in (-1, 5):
        with pytest.raises(OffsetOutOfRangeError, match=f"has offsets 0 to 4, not {position}"):
            broker.fetcher().fetch({PLACE: position}, wait_ms=0, bytes_max=100)


def test_a_cut_gzip_gives_no_record_of_what_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\nb\n")[:-4])
    with pytest.raises(FileError, match="the file is cut"):
        rows_of(file_broker(tmp_path / "a.txt.gz"))
