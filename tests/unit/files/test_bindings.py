"""What may be named as an input or output, and what is said of anything else."""

from pathlib import Path

import pytest

from streamkit.errors import ConfigError
from streamkit.files.bindings import Format, check_free, format_of, input_bindings, output_bindings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "odd.dat", "[x].txt"):
        (tmp_path / name).touch()
    (tmp_path / "dir").mkdir()


def test_a_name_says_how_records_lie_in_a_file() -> None:
    assert format_of("x/a.txt") == (Format.TEXT, False)
    assert format_of("a.b.jsonl.gz") == (Format.JSON_LINES, True)
    assert format_of("a.csv.gz") == (Format.CSV, True)
    assert format_of("a.parquet") == (Format.PARQUET, False)


@pytest.mark.parametrize("name", ["a", "a.json", "a.parquet.gz", "a.gz", "txt", "a.TXT"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="its name says how records lie in it"):
        format_of(name)


def test_a_topic_has_the_files_that_were_named_in_their_order_and_globs_sorted(tmp_path: Path) -> None:
    (lines,) = input_bindings(["lines=b.txt", "lines=a*.txt"], ["lines", "other"])
    assert lines.paths == (str(tmp_path / "b.txt"), str(tmp_path / "a.txt"))
    assert lines.named == (str(tmp_path / "b.txt"), str(tmp_path / "a*.txt"))
    (lines,) = input_bindings(["lines=?.txt"], ["lines"])
    assert lines.paths == (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    (lines,) = input_bindings(["lines=[x].txt"], ["lines"])
    assert lines.paths == (str(tmp_path / "[x].txt"),), "a file of that name comes before what it would match"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lines"], r"'lines' is not TOPIC=PATH"),
        (["=a.txt"], "is not TOPIC=PATH"),
        (["lines="], "is not TOPIC=PATH"),
        (["words=a.txt"], "the topic 'words', and the job reads none of that name"),
        (["lines=c.txt"], "the input 'c.txt' does not exist"),
        (["lines=*.jsonl"], r"the input '\*.jsonl' matches no file"),
        (["lines=dir"], "'dir' is a directory"),
        (["lines=odd.dat"], "odd.dat' is no file that can be read"),
        (["lines=a.txt", "lines=*.txt"], "a.txt' is an input of 'lines' twice"),
    ],
)
def test_inputs_that_cannot_be_are_refused_by_name(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        input_bindings(texts, ["lines"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["counts"], "is not TOPIC=PATH"),
        (["words=o.csv"], "the topic 'words', and the job writes none of that name"),
        (["counts=no/o.csv"], "the directory of the output 'no/o.csv' does not exist"),
        (["counts=dir"], "the output 'dir' is a directory"),
        (["counts=o.txt"], "no file that can be written"),
        (["counts=o.jsonl.gz"], "no file that can be written"),
        (["counts=o.csv", "counts=p.csv"], "'counts' has two outputs"),
        (["counts=o.csv", "other=./o.csv"], "is the output of two topics"),
    ],
)
def test_outputs_that_cannot_be_are_refused_by_name(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        output_bindings(texts, ["counts", "other"])


def test_a_file_that_is_there_is_replaced_on_demand_alone(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_bytes(b"mine")
    outputs = output_bindings(["counts=o.csv"], ["counts"])
    with pytest.raises(ConfigError, match=r"o.csv' exists") as caught:
        check_free(outputs, (), overwrite=False)
    assert "--overwrite" in caught.value.hint
    check_free(outputs, (), overwrite=True)
    assert (tmp_path / "o.csv").read_bytes() == b"mine"


def test_an_input_is_never_an_output_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    inputs = input_bindings(["lines=a.jsonl"], ["lines"])
    with pytest.raises(ConfigError, match="an input and an output"):
        check_free(output_bindings(["counts=link.jsonl"], ["counts"]), inputs, overwrite=True)
