"""`streamkit restore`: the state of a job from its changelogs."""

import click
import orjson

from streamkit.broker.state_root import state_root
from streamkit.cli.broker import broker_option, opened, state_dir_option
from streamkit.cli.load import load_job
from streamkit.cli.rebuilds import as_object, progress_shown, store_line
from streamkit.errors import ConfigError
from streamkit.runtime.restore import Restorer
from streamkit.runtime.setup import check_not_replayed
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

__all__ = ["restore"]


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one has the digests.")
def restore(job: str, url: str, state_dir: str | None, as_json: bool) -> None:
    """Build the state directory of JOB anew, from its changelogs.

    Each store takes the place of the old one when it is whole and its digest is the one that was committed with its
    last transaction. Cut short in any way, the same command begins anew; until then the old state is there.
    """
    topology = compile_graph(load_job(job).build())
    with opened(url) as broker:
        root = state_dir or state_root(url, broker)
        if root is None:
            raise ConfigError(f"{url!r} keeps no state", hint="name a directory with --state-dir")
        check_not_replayed(topology.job, broker.admin.describe_topics())
        clock = SystemClock()
        began_ms = clock.monotonic_ms()
        with progress_shown(topology.job, as_json=as_json) as told:
            restored = Restorer(topology, broker, fs=SystemFileSystem(), clock=clock, told=told).restore(root)
        seconds = (clock.monotonic_ms() - began_ms) / 1000
    if as_json:
        stores = [as_object(store) for store in restored]
        click.echo(orjson.dumps({"stores": stores, "seconds": round(seconds, 3), "finished": True}))
        return
    record_count = sum(store.record_count for store in restored)
    tasks = len({store.task for store in restored})
    click.echo(
        f"{topology.job}: restored {tasks} tasks from {record_count:,} changelog records, {seconds:.2f} s, in {root}"
    )
    for store in restored:
        click.echo(store_line(store))
