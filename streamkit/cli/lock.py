"""`streamkit lock`: what of a job its state depends on, kept beside the job module; and `run`'s look at it."""

import sys
from pathlib import Path

import click

from streamkit.cli.exits import FAILED
from streamkit.cli.load import load_job, module_file
from streamkit.errors import ConfigError, TopologyError
from streamkit.topology import Topology, compile_graph
from streamkit.topology.changes import changes_between
from streamkit.topology.lock import Lock, lock_of

__all__ = ["lock", "refuse_unlocked"]


@click.command()
@click.argument("job")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if JOB differs from its lock.")
def lock(job: str, check: bool) -> None:
    """Write JOB.topology.json beside the module of JOB, and say what changed.

    A change is safe, needs a replay, or orphans state. While there is a lock, run refuses a job that differs from it in
    what is not safe. Writing the lock anew accepts the change.
    """
    topology = compile_graph(load_job(job).build())
    file, now = lock_file(job), lock_of(topology)
    locked = _read(file)
    if locked is None and check:
        raise ConfigError(f"there is no {file}", hint=f"write it with streamkit lock {job}, and commit it")
    if locked == now:
        click.echo(f"{file}: as the job is")
        return
    for change in () if locked is None else changes_between(locked, now):
        click.echo(change.to_text())
    if check:
        click.echo(f"Error: {job} differs from {file}", err=True)
        sys.exit(FAILED)
    file.write_bytes(now.to_json())
    click.echo(f"{file}: written")


def lock_file(job: str) -> Path:
    """Return where the lock of a job is that was loaded."""
    return module_file(job).with_suffix(".topology.json")


def refuse_unlocked(job: str, topology: Topology) -> None:
    """Refuse a job that differs from its lock in what needs a replay or orphans state; without a lock, do nothing.

    Raises:
        TopologyError: It does. The message has every such change.
        ConfigError: The lock cannot be read.
    """
    file = lock_file(job)
    locked = _read(file)
    changes = () if locked is None else changes_between(locked, lock_of(topology))
    unsafe = [change.to_text() for change in changes if change.kind != "safe"]
    if unsafe:
        raise TopologyError(
            f"{job} differs from {file} in what its state depends on",
            detail="\n".join(unsafe).replace("\n", "\n  "),
            hint=f"undo the change, or accept it with streamkit lock {job}",
        )


def _read(file: Path) -> Lock | None:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    return Lock.from_json(data, str(file))
