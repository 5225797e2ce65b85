"""Bytes of input files by position."""

import gzip
import os
from pathlib import Path

import pytest

from streamkit.errors import FileError
from streamkit.files.content import InflatedContent, PlainContent, line_end
from streamkit.seams.user_files import FileFacts, facts_of

TEXT = b"".join(b"line %d\n" % number for number in range(300_000))


def facts(path: Path) -> FileFacts:
    found = facts_of(str(path))
    assert found is not None
    return found


def inflated(path: Path, data: bytes) -> InflatedContent:
    path.write_bytes(data)
    return InflatedContent(facts(path))


def test_what_gzip_holds_is_read_by_position_forwards_and_back(tmp_path: Path) -> None:
    content = inflated(tmp_path / "a.gz", gzip.compress(TEXT))
    for position, size in ((0, 10), (5, 100), (1_000_000, 400_000), (len(TEXT) - 3, 10), (3, 7), (len(TEXT), 5)):
        assert content.read_at(position, size) == TEXT[position : position + size]


def test_members_one_behind_the_other_are_one_content_and_zeros_behind_them_are_nothing(tmp_path: Path) -> None:
    content = inflated(
        tmp_path / "a.gz", gzip.compress(b"a\n") + gzip.compress(b"") + gzip.compress(b"b\n") + bytes(99)
    )
    assert content.read_at(0, 100) == b"a\nb\n"


@pytest.mark.parametrize("cut", [1, 8, 12, 5_000])
def test_a_cut_gzip_is_an_error_that_names_file_and_byte(tmp_path: Path, cut: int) -> None:
    data = gzip.compress(TEXT)[:-cut]
    with pytest.raises(FileError, match="the file is cut") as caught:
        inflated(tmp_path / "a.gz", data).read_at(0, len(TEXT) + 1)
    assert caught.value.detail == f"{tmp_path / 'a.gz'} byte {len(data)}"


def test_what_is_no_gzip_is_an_error_that_names_file_and_byte(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no gzip, or a damaged one") as caught:
        inflated(tmp_path / "a.gz", b"plain text").read_at(0, 10)
    assert caught.value.detail == f"{tmp_path / 'a.gz'} byte 0"


def test_a_flipped_bit_in_gzip_is_an_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[-6] ^= 1  # of the checksum
    with pytest.raises(FileError, match="damaged"):
        inflated(tmp_path / "a.gz", bytes(data)).read_at(0, len(TEXT) + 1)


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_a_file_that_changes_under_a_run_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n")
    content = PlainContent(facts(path))
    assert content.read_at(4, 3) == b"two"
    if change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        path.write_bytes(b"one\ntwo\nthree\n" if change == "longer" else b"one\n")
    with pytest.raises(FileError, match="has changed while it was read") as caught:
        content.read_at(0, 3)
    assert caught.value.path == str(path)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read: No such file") as caught:
        PlainContent(FileFacts(path=str(tmp_path / "gone.txt"), size_bytes=1, modified_ns=1))
    assert caught.value.path == str(tmp_path / "gone.txt")


def test_lines_end_where_they_are_asked_to_or_at_the_first_end_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    long = b"x" * 200_000
    path.write_bytes(b"a\nbb\n" + long + b"\nlast")
    content, size = PlainContent(facts(path)), path.stat().st_size
    ends = [line_end(content, str(path), begin, begin + wanted, size) for begin, wanted in ((0, 3), (0, 1), (2, 1))]
    assert ends == [2, 2, 5]
    assert line_end(content, str(path), 5, 10, size) == 5 + len(long) + 1
    assert line_end(content, str(path), 5 + len(long) + 1, size, size) == size
    assert line_end(content, str(path), 5, 150_000, size) == 5 + len(long) + 1


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 300_000)
    monkeypatch.setattr("streamkit.files.content.LINE_BYTES_MAX", 100_000)
    with pytest.raises(FileError, match="longer than 100000 bytes") as caught:
        line_end(PlainContent(facts(path)), str(path), 0, 10, 300_000)
    assert caught.value.detail == f"{path} byte 0"
