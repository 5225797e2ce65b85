"""`streamkit verify`: state, changelogs and inputs of a job, held against each other."""

from collections.abc import Sequence
from typing import Any

import click
import orjson

from streamkit.cli.broker import broker_option, state_dir_option
from streamkit.cli.files import binding_options
from streamkit.cli.rebuilds import progress_shown, rebuilt_job
from streamkit.runtime.comparing import Comparison, check_equal
from streamkit.runtime.verify import Verification
from streamkit.seams import SystemClock, SystemFileSystem

__all__ = ["print_comparisons", "verify"]


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@binding_options
@click.option("--no-replay", is_flag=True, help="Leave out running the inputs again.")
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one has the answers.")
def verify(  # noqa: PLR0913  # a parameter an option
    job: str,
    url: str,
    state_dir: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    no_replay: bool,
    as_json: bool,
) -> None:
    """Compare the state of JOB with its changelogs, and with what its inputs give when they are run again.

    Nothing of the job is changed: it all happens in a scratch directory beside the state. Exit code 1 if two differ.
    With --input or --output it is the run over files that has these bindings.
    """
    with rebuilt_job(job, url, state_dir, (inputs, outputs)) as found:
        verification = Verification(
            found.topology,
            found.broker,
            state_dir=found.state_dir,
            options=found.options,
            fs=SystemFileSystem(),
            clock=SystemClock(),
        )
        with progress_shown(found.name, as_json=as_json) as told:
            comparisons = verification.run(told, shadow=not no_replay, kept=found.kept)
    print_comparisons(found.name, comparisons, "verified", as_json=as_json)
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
