"""The directory of a run over files, from its first start to its end."""

import threading
from pathlib import Path

import msgspec
import pytest

from streamkit import Job
from streamkit.broker import open_broker
from streamkit.errors import ConfigError, FileError, LogLockedError
from streamkit.files import PUBLISHING_STEPS, FileRun, FileRunRequest, input_bindings, output_bindings
from streamkit.runtime import RunOptions, Worker
from streamkit.seams import MemoryFileSystem, SeededRng, SystemClock, SystemFileSystem
from streamkit.topology import Topology, compile_graph


class Crash(BaseException):
    """The process is gone."""


def copying() -> Topology:
    job = Job("copying")
    job.stream("lines", value=str).to("copies")
    return compile_graph(job.build())


def request(directory: Path, *, name: str = "out.jsonl", overwrite: bool = False) -> FileRunRequest:
    return FileRunRequest(
        topology=copying(),
        inputs=input_bindings([f"lines={directory}/in.txt"], ["lines"]),
        outputs=output_bindings([f"copies={directory}/{name}"], ["copies"]),
        whole=(),
        overwrite=overwrite,
        root=str(directory / "runs"),
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_bytes(b'a "b"\n\xc3\xa4\n')
    return tmp_path


def done(run: FileRun) -> None:
    log = open_broker("memory://")
    options, clock = RunOptions(bounded=True), SystemClock()
    worker = Worker(run.topology, run.broker(log), options=options, fs=MemoryFileSystem(), clock=clock)
    assert worker.run(threading.Event()).finished
    run.write_outputs()
    log.close()


def begun(asked: FileRunRequest) -> FileRun:
    return FileRun(asked, SystemFileSystem(), SeededRng(1))


def values(path: Path) -> list[str]:
    return [line.rpartition(b'"value":')[2].decode() for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("step", [step.__name__ for step in PUBLISHING_STEPS])
def test_a_death_before_any_step_of_publishing_leaves_the_rest_to_the_same_command(directory: Path, step: str) -> None:
    run = begun(request(directory))
    done(run)

    def die(at: str) -> None:
        if at == step:
            raise Crash

    with pytest.raises(Crash):
        run.publish(observe=die)
    run.close()
    again = begun(request(directory))
    assert again.published
    again.publish()
    again.close()
    assert values(directory / "out.jsonl") == ['"a \\"b\\""}', '"ä"}']
    assert list((directory / "runs").iterdir()) == []
    assert sorted(path.name for path in directory.iterdir()) == ["in.txt", "out.jsonl", "runs"]


def test_a_run_is_one_process_at_a_time(directory: Path) -> None:
    run = begun(request(directory))
    with pytest.raises(LogLockedError, match="another process runs this job on these files"):
        begun(request(directory))
    run.close()
    begun(request(directory)).close()


def test_other_outputs_are_another_run(directory: Path) -> None:
    run, other = begun(request(directory)), begun(request(directory, name="other.jsonl"))
    assert run.directory != other.directory
    run.close()
    other.close()


def test_a_file_that_came_in_the_place_of_an_output_meanwhile_stays(directory: Path) -> None:
    run, output = begun(request(directory)), directory / "out.jsonl"
    output.write_bytes(b"mine")
    with pytest.raises(FileError, match="was not there when the run began"):
        done(run)
    run.close()
    assert output.read_bytes() == b"mine"
    assert not run.published
    again = begun(request(directory, overwrite=True))
    done(again)
    again.publish()
    again.close()
    assert len(values(output)) == 2


def test_what_is_refused_leaves_no_directory(directory: Path) -> None:
    (directory / "out.jsonl").touch()
    with pytest.raises(ConfigError, match="exists"):
        begun(request(directory))
    (directory / "out.jsonl").unlink()
    asked = request(directory)
    (directory / "in.txt").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        begun(asked)
    assert not list((directory / "runs").iterdir())


def test_a_value_whose_field_is_called_like_a_column_beside_it_is_refused_before_the_run(directory: Path) -> None:
    keyed = msgspec.defstruct("Keyed", [("key", str)], module=__name__)
    job = Job("keyed")
    job.stream("lines", value=keyed).to("copies")
    asked = FileRunRequest(
        topology=compile_graph(job.build()),
        inputs=input_bindings([f"lines={directory}/in.txt"], ["lines"]),
        outputs=output_bindings([f"copies={directory}/out.csv"], ["copies"]),
        whole=(),
        overwrite=False,
        root=str(directory / "runs"),
    )
    with pytest.raises(ConfigError, match="have a field 'key'") as caught:
        begun(asked)
    assert ".jsonl" in caught.value.hint


def doubling(directory: Path, *outputs: str, shared: bool = False, bad: bytes = b'"x"') -> FileRunRequest:
    (directory / "numbers.jsonl").write_bytes(b"1\n" + bad + b"\n")
    job = Job("doubling", on_error="dead_letter")
    job.stream("numbers", value=int).map(lambda number: 2 * number).to("doubled")
    return FileRunRequest(
        topology=compile_graph(job.build()),
        inputs=input_bindings([f"numbers={directory}/numbers.jsonl"], ["numbers"]),
        outputs=output_bindings(outputs, ["doubled", "doubling.dead_letter"]),
        whole=(),
        overwrite=False,
        root=str(directory / "runs"),
        shared=shared,
    )


@pytest.mark.parametrize("shared", [False, True])
def test_dead_letters_are_an_output_that_names_file_and_byte(directory: Path, shared: bool) -> None:
    path = directory / "letters.jsonl"
    run = begun(doubling(directory, f"doubling.dead_letter={path}", shared=shared))
    done(run)
    run.close()
    (temporary,) = directory.glob(".letters.jsonl.*.partial")
    (letter,) = [msgspec.json.decode(line)["value"] for line in temporary.read_bytes().splitlines()]
    assert letter["reason"].startswith("the value does not decode as int")
    assert letter["place"] == f"{directory}/numbers.jsonl byte 2"
    assert (letter["topic"], letter["offset"], letter["record"]) == ("numbers", 2, '"x"')


def test_dead_letters_that_would_go_with_the_run_are_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match="go with the run") as caught:
        begun(doubling(directory, f"doubled={directory}/out.jsonl"))
    assert "--output doubling.dead_letter=FILE.jsonl" in caught.value.hint
    assert not (directory / "runs").exists()


def test_a_line_that_is_larger_than_a_record_of_a_topic_can_be_a_dead_letter(directory: Path) -> None:
    bad = b'"%b"' % (b"x" * 1_200_000)
    run = begun(doubling(directory, f"doubling.dead_letter={directory}/letters.jsonl", bad=bad))
    done(run)
    run.close()
    (temporary,) = directory.glob(".letters.jsonl.*.partial")
    assert [msgspec.json.decode(line)["value"]["record"] for line in temporary.read_bytes().splitlines()] == [
        bad.decode()
    ]
