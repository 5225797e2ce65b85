"""`streamkit shards`: who has which task of a job, how far it is, and what a change of workers would move."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from streamkit.broker.protocols import Member
from streamkit.broker.state_root import state_root
from streamkit.cli.broker import broker_option, opened, state_dir_option
from streamkit.cli.load import load_job
from streamkit.runtime.shards import Shard, list_shards, preview_moves
from streamkit.topology import compile_graph

__all__ = ["shards"]


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@click.option("--preview-workers", type=click.IntRange(min=1), metavar="N", help="Show what would move with N workers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def shards(job: str, url: str, state_dir: str | None, preview_workers: int | None, as_json: bool) -> None:
    """Show the tasks of JOB: owner, transaction number, lag, and the size of the state that is on this machine."""
    topology = compile_graph(load_job(job).build())
    with opened(url) as broker:
        root = state_dir or state_root(url, broker)
        found = list_shards(topology, broker)
        members = broker.group(topology.job).members()
    sizes = {one.task: None if root is None else _size_bytes(Path(root, topology.job, one.task)) for one in found}
    moves = {}
    if preview_workers is not None:
        moves = preview_moves(members, [one.task for one in found], _workers(members, preview_workers))
    if as_json:
        rows = [
            {
                "task": one.task,
                "owner": one.owner,
                "transaction": one.transaction,
                "lag": one.lag,
                "state_bytes": sizes[one.task],
            }
            for one in found
        ]
        shown = {task: {"from": before, "to": after} for task, (before, after) in moves.items()}
        click.echo(orjson.dumps({"shards": rows} | ({} if preview_workers is None else {"moves": shown})))
        return
    _print_table(found, sizes)
    if preview_workers is not None:
        click.echo(f"with {preview_workers} workers {len(moves)} of {len(found)} tasks move")
        for task, (before, after) in sorted(moves.items()):
            click.echo(f"  {task}: {before or 'nobody'} -> {after}")


def _print_table(found: Sequence[Shard], sizes: dict[str, int | None]) -> None:
    click.echo(f"{'task':<8} {'owner':<24} {'transaction':>12} {'lag':>12} {'state bytes':>14}")
    for one in found:
        size = sizes[one.task]
        here = "-" if size is None else size
        click.echo(f"{one.task:<8} {one.owner or '-':<24} {one.transaction:>12} {one.lag:>12} {here:>14}")


def _workers(members: Sequence[Member], count: int) -> list[str]:
    """Return the members that would stay, the first by name, and new ones named as `run --workers` would."""
    names = sorted(member.id for member in members)[:count]
    number = 0
    while len(names) < count:
        name = f"{os.uname().nodename}-{number}"
        names += [name] if name not in names else []
        number += 1
    return names


def _size_bytes(directory: Path) -> int | None:
    """Return the size of a task's directory, None if this machine has none."""
    if not directory.is_dir():
        return None
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
