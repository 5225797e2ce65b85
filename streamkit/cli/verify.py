"""`streamkit verify`: state, changelogs and inputs of a job, held against each other."""

from collections.abc import Sequence
from typing import Any

import click
import orjson

from streamkit.broker.state_root import state_root
from streamkit.cli.broker import broker_option, opened, state_dir_option
from streamkit.cli.load import load_job
from streamkit.cli.rebuilds import progress_shown
from streamkit.errors import ConfigError
from streamkit.runtime import RunOptions
from streamkit.runtime.comparing import Comparison, check_equal
from streamkit.runtime.verify import Verification
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

__all__ = ["print_comparisons", "verify"]


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@click.option("--no-replay", is_flag=True, help="Leave out running the inputs again.")
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one has the answers.")
def verify(job: str, url: str, state_dir: str | None, no_replay: bool, as_json: bool) -> None:
    """Compare the state of JOB with its changelogs, and with what its inputs give when they are run again.

    Nothing of the job is changed: it all happens in a scratch directory beside the state. Exit code 1 if two differ.
    """
    topology = compile_graph(load_job(job).build())
    with opened(url) as broker:
        root = state_dir or state_root(url, broker)
        if root is None:
            raise ConfigError(f"{url!r} keeps no state", hint="name a directory with --state-dir")
        verification = Verification(
            topology, broker, state_dir=root, options=RunOptions(), fs=SystemFileSystem(), clock=SystemClock()
        )
        with progress_shown(topology.job, as_json=as_json) as told:
            comparisons = verification.run(told, shadow=not no_replay)
    print_comparisons(topology.job, comparisons, "verified", as_json=as_json)
    check_equal(comparisons)


def print_comparisons(
    job: str, comparisons: Sequence[Comparison], what: str, *, as_json: bool, with_digests: bool = False
) -> None:
    """Print what each comparison came to, those of one answer (and digest) in one line."""
    if as_json:
        click.echo(orjson.dumps({"comparisons": [_as_object(one) for one in comparisons], "finished": True}))
        return
    equal_count = sum(one.equal is True for one in comparisons)
    differ_count = sum(one.equal is False for one in comparisons)
    click.echo(
        f"{job}: {what}: {equal_count} equal, {differ_count} different, "
        f"{len(comparisons) - equal_count - differ_count} not comparable"
    )
    alike: dict[tuple[str, str, str], list[str]] = {}
    for one in comparisons:
        answer = {True: "equal", False: "DIFFERENT", None: "not comparable"}[one.equal]
        answer += f": {one.reason}" if one.reason else ""
        if with_digests:
            answer += f", digest {one.digest}"
        alike.setdefault((one.spec.name, one.side, answer), []).append(one.task)
    for (store, side, answer), tasks in alike.items():
        click.echo(f"  {store} of {' '.join(tasks)}, {side}: {answer}")


def _as_object(one: Comparison) -> dict[str, Any]:
    return {
        "task": one.task,
        "store": one.spec.name,
        "side": one.side,
        "equal": one.equal,
        "reason": one.reason,
        "digest": one.digest,
        "faults": [str(fault) for fault in one.faults],
    }
