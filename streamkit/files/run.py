"""A run over files: its directory, from the first start until its outputs are in their places.

The directory is named after job and bindings, so that the same command finds it again. In it are the plan (`plan`), the
log of the run, and its state. When the job is done, the outputs are written beside their places; then `published` is
written, and from then on nothing is computed or written any more, only renamed and removed. So whenever the process
dies, the same command does what is left, and an output is as it was or complete.

The steps stand in one tuple, in their order; tests crash before each of them.
"""

import functools
import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import msgspec
import orjson

from streamkit.broker import Broker
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import ConfigError, FileError, LogLockedError, RecordError
from streamkit.files.apart import named_apart, remove_topics, topic_apart
from streamkit.files.bindings import Format, InputBinding, OutputBinding, check_free, format_of
from streamkit.files.broker import FileBroker
from streamkit.files.fetcher import FileTopic
from streamkit.files.letters import LETTER_SHAPE, letter_rows, letters_topic
from streamkit.files.outputs import SinkTopic, write_output
from streamkit.files.plan import RunPlan, check_same_job, check_unchanged, made_plan
from streamkit.files.shapes import check_columns, columns_beside, sink_shapes
from streamkit.graph import Source
from streamkit.records import TopicPartition
from streamkit.seams import File, FileSystem, Rng
from streamkit.seams.user_files import facts_of, put_in_place
from streamkit.topology import Topology
from streamkit.topology.names import dead_letter_topic
from streamkit.topology.node_texts import node_texts

__all__ = ["PUBLISHING_STEPS", "FileRun", "FileRunRequest"]

Observe: TypeAlias = Callable[[str], None]

_PLAN, _PUBLISHED, _LOCK = "plan", "published", "lock"
_ID_LENGTH: Final = 16


def _unobserved(step: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRunRequest:
    """What a command asks for.

    Args:
        topology: Of the job.
        inputs: Files of its streams.
        outputs: Files of its sinks.
        whole: Topics that the job reads by their own key.
        overwrite: Whether outputs that exist are replaced when the run is done.
        root: The directory below which runs have theirs.
        shared: Whether the run is on a log that is not its own, since not all of its topics are files, or since that
            was asked for.
        begun: Whether the run must have begun and not be done; then none is begun.
    """

    topology: Topology
    inputs: tuple[InputBinding, ...]
    outputs: tuple[OutputBinding, ...]
    whole: tuple[str, ...]
    overwrite: bool
    root: str
    shared: bool = False
    begun: bool = False


class FileRun:
    """One run over files, begun or gone on with.

    Raises:
        ConfigError: An output exists or cannot be, or an input or the job has changed since the run began, or it has
            not begun and must have. Nothing was made.
        LogLockedError: Another process is at this run.
    """

    def __init__(self, request: FileRunRequest, fs: FileSystem, rng: Rng) -> None:
        """Find the run that the same command began before, or begin one.

        Args:
            request: What the command asks for.
            fs: Where the run's directory is.
            rng: Names a run on a log that is not its own.
        """
        self._request, self._fs, self._rng = request, fs, rng
        self.directory = f"{request.root}/{_run_id(request)}"
        self._shapes, self._letters = sink_shapes(request.topology), letters_topic(request.topology)
        self._lock: File | None = None
        self._broker: Broker | None = None
        begun = fs.list(self.directory)
        if request.begun:
            self._check_begun(begun)
        elif _PLAN not in begun and _PUBLISHED not in begun:
            self._check()
        fs.make_dirs(self.directory)
        self._lock = fs.lock(f"{self.directory}/{_LOCK}")
        if self._lock is None:
            raise LogLockedError(
                "another process runs this job on these files", detail=self.directory, hint="wait for it, or stop it"
            )
        try:
            self.plan = self._planned()
        except BaseException:
            if not {_PLAN, _PUBLISHED} & set(fs.list(self.directory)):
                fs.remove(self.directory)
            self.close()
            raise

    @property
    def published(self) -> bool:
        """Whether the job is done, and only renaming and removing is left."""
        return _PUBLISHED in self._fs.list(self.directory)

    @property
    def topology(self) -> Topology:
        """The job as it runs here."""
        topology = self._request.topology
        return named_apart(topology, self.plan.name, self._bound) if self._request.shared else topology

    @property
    def sources(self) -> list[str]:
        """The topics that are read from files, as they are called here."""
        return [self._topic(topic) for topic in self.plan.inputs]

    @property
    def _bound(self) -> set[str]:
        return {*self.plan.inputs, *self.plan.outputs}

    def _topic(self, topic: str) -> str:
        """Return what a topic that is bound to a file is called here."""
        if topic == self._letters:
            return dead_letter_topic(self.topology.job)
        return topic_apart(self.plan.name, topic) if self._request.shared else topic

    def broker(self, log: Broker) -> Broker:
        """Return the broker that the job runs on.

        Args:
            log: Of the run: its own, opened in `log_directory`, or the shared one. It stays the caller's.
        """
        sources = {node.topic: node for node in self._request.topology.graph.nodes if isinstance(node, Source)}
        topics = {
            self._topic(topic): FileTopic(
                partitions=partitions, key_type=sources[topic].key_type, value_type=sources[topic].value_type
            )
            for topic, partitions in self.plan.inputs.items()
        }
        self._broker = log
        sinks = {self._topic(topic) for topic in self.plan.outputs}
        return FileBroker(log, topics, {facts.path: facts for facts in self.plan.files}, sinks)

    @property
    def log_directory(self) -> str:
        """Where the log of the run is."""
        return f"{self.directory}/log"

    @property
    def state_directory(self) -> str:
        """Where its state is."""
        return f"{self.directory}/state"

    def write_outputs(self) -> None:
        """Write the outputs of a finished job beside their places, and say so durably.

        Raises:
            FileError: One cannot be written, or a file was put in its place since the run began. What is in its place
                stays; the same command tries again.
        """
        assert self._broker is not None, "the job ran on it"
        try:
            for topic, path in self.plan.outputs.items():
                if facts_of(path) is not None and not (self.plan.overwrite or self._request.overwrite):
                    hint = "move it away and run the same command, or add --overwrite"
                    raise FileError("the output was not there when the run began, and is now", path=path, hint=hint)
                write_output(self._sink(topic, self._broker), path, self._temporary(path))
        except BaseException:
            for path in self.plan.outputs.values():
                self._fs.remove(self._temporary(path))
            raise
        write_whole(self._fs, f"{self.directory}/{_PUBLISHED}", b"")

    def _sink(self, topic: str, broker: Broker) -> SinkTopic:
        if topic == self._letters:
            rows_of = functools.partial(letter_rows, place_of=self._place_of)
            return SinkTopic(broker=broker, topic=self._topic(topic), shape=LETTER_SHAPE, rows_of=rows_of)
        return SinkTopic(broker=broker, topic=self._topic(topic), shape=self._shapes[topic])

    def publish(self, shared: Broker | None = None, observe: Observe = _unobserved) -> None:
        """Put the outputs in their places and remove the run; its own log must be closed.

        Args:
            shared: The log of the run if that is not its own.
            observe: Told each step's name before it.

        Raises:
            FileError: A file cannot be renamed; the same command tries again.
        """
        assert self.published, "outputs are written"
        assert (shared is not None) == self._request.shared, "what a run made on a log is removed there"
        self._broker = shared
        for step in PUBLISHING_STEPS:
            observe(step.__name__)
            step(self)

    def put_outputs_in_place(self) -> None:
        """Rename each output that was not renamed yet."""
        for path in self.plan.outputs.values():
            temporary = self._temporary(path)
            if facts_of(temporary) is not None:
                try:
                    put_in_place(temporary, path)
                except OSError as error:
                    raise FileError(f"the output cannot be put in place: {error.strerror}", path=path) from error

    def remove_log(self) -> None:
        """Remove the log, or what is on a shared one: the outputs have what was in it."""
        self._fs.remove(self.log_directory)
        if self._broker is not None and self.plan.name:
            remove_topics(self._broker, self.plan.name)

    def remove_state(self) -> None:
        """Remove the state."""
        self._fs.remove(self.state_directory)

    def remove_plan(self) -> None:
        """Remove the plan: without it the run is published, and nothing is left to rename."""
        self._fs.remove(f"{self.directory}/{_PLAN}")

    def remove(self) -> None:
        """Remove the rest, and with it what says that there was a run."""
        self._fs.remove(self.directory)

    def name_place(self, error: RecordError) -> None:
        """Add to the error of a record the file that it lies in, and where."""
        topic, place = self._place_of(error.topic, error.partition, error.offset)
        error.detail = error.detail.replace(f"record {error.topic}-", f"record {topic}-", 1)
        if place:
            error.detail = f"{place}, {error.detail}" if error.detail else place

    def place_name(self, at: TopicPartition, offset: int) -> str:
        """Return where a record lies, as a warning says it: in which file, if in one."""
        topic, place = self._place_of(at.topic, at.partition, offset)
        return place or f"record {topic}-{at.partition} offset {offset}"

    def _place_of(self, topic: str, partition: int, offset: int) -> tuple[str, str]:
        """Return the job's name of a topic of the run, and where in a file a record of it lies, "" if in none."""
        named = next((one for one in self.plan.inputs if self._topic(one) == topic), None)
        part = None if named is None else self.plan.inputs[named][partition].part_at(offset)
        if part is None:
            return named or topic, ""
        form, gzip = format_of(part.path)
        unit = "row" if form is Format.PARQUET else "inflated byte" if gzip else "byte"
        return named or topic, f"{part.path} {unit} {part.begin + offset - part.offset}"

    def close(self) -> None:
        """Give the run back to whoever goes on with it; closing twice does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_begun(self, there: Iterable[str]) -> None:
        """Refuse what only `run` can do: begin, and put outputs in their places."""
        job = self._request.topology.job
        if _PUBLISHED in there:
            raise ConfigError(
                f"this run of job {job!r} over files is done, and its outputs are being put in their places",
                detail=self.directory,
                hint="streamkit run with the same --input and --output does what is left of that",
            )
        if _PLAN not in there:
            raise ConfigError(
                f"job {job!r} has no run with these files that has begun and is not done",
                detail=f"there is no {self.directory}",
                hint="a run that is done has removed its state: streamkit run computes it anew, with --overwrite where"
                " outputs are; one that is not done is named by each --input and --output with which it was begun",
            )

    def _check(self) -> None:
        """Refuse what is wrong with the outputs of a run that has not begun."""
        request = self._request
        check_free(request.outputs, request.inputs, overwrite=request.overwrite)
        if self._letters is not None and self._letters not in {output.topic for output in request.outputs}:
            raise ConfigError(
                f"the job {request.topology.job!r} writes dead letters, and those of a run over files go with the run",
                hint=f"add --output {self._letters}=FILE.jsonl",
            )
        for output in request.outputs:
            if output.topic != self._letters and format_of(output.path)[0] is not Format.JSON_LINES:
                check_columns(output.topic, columns_beside(self._shapes[output.topic]))

    def _planned(self) -> RunPlan:
        """Return the plan of the run, made now if it has none."""
        request, path = self._request, f"{self.directory}/{_PLAN}"
        if request.begun:
            # It may have ended while the lock was not held.
            self._check_begun(self._fs.list(self.directory))
        body = read_whole(self._fs, path)
        if body is not None:
            plan = msgspec.json.decode(body, type=RunPlan)
            if not self.published:
                check_unchanged(plan, request.inputs, self.directory)
                check_same_job(plan, node_texts(request.topology), self.directory)
            return plan
        if self.published:
            # Only the directory is left: of a run without a name nothing else can be removed.
            return RunPlan(name="", files=(), inputs={}, outputs={})
        job = request.topology.job
        name = f"{job}-{self._rng.token()[:_ID_LENGTH]}" if request.shared else job
        plan = made_plan(name, request.inputs, request.outputs, request.whole)
        plan = replace(plan, overwrite=request.overwrite, nodes=node_texts(request.topology))
        write_whole(self._fs, path, msgspec.json.encode(plan))
        return plan

    def _temporary(self, path: str) -> str:
        """Return the name that an output bears until it is complete: beside its place, hidden, of this run alone."""
        name = f".{posixpath.basename(path)}.{posixpath.basename(self.directory)}.partial"
        return posixpath.join(posixpath.dirname(path), name)


PUBLISHING_STEPS: Final = (
    FileRun.put_outputs_in_place,
    FileRun.remove_log,
    FileRun.remove_state,
    FileRun.remove_plan,
    FileRun.remove,
)


def _run_id(request: FileRunRequest) -> str:
    """Return what the same job with the same bindings always has, whatever is in the files."""

    def bound(bindings: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
        return sorted(bindings, key=lambda binding: str(binding["topic"]))

    named = {
        "job": request.topology.job,
        "shared": request.shared,
        "inputs": bound({"topic": one.topic, "named": one.named} for one in request.inputs),
        "outputs": bound({"topic": one.topic, "path": one.path} for one in request.outputs),
    }
    return hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_ID_LENGTH]
