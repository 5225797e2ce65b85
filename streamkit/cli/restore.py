"""`streamkit restore`: the state of a job from its changelogs."""

import click
import orjson

from streamkit.cli.broker import broker_option, state_dir_option
from streamkit.cli.files import binding_options
from streamkit.cli.rebuilds import as_object, progress_shown, rebuilt_job, store_line
from streamkit.runtime.restore import Restorer
from streamkit.runtime.setup import check_not_replayed
from streamkit.seams import SystemClock, SystemFileSystem

__all__ = ["restore"]


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@binding_options
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one has the digests.")
def restore(
    job: str, url: str, state_dir: str | None, inputs: tuple[str, ...], outputs: tuple[str, ...], as_json: bool
) -> None:
    """Build the state directory of JOB anew, from its changelogs; with --input or --output that of a run over files.

    Each store takes the place of the old one when it is whole and its digest is the one that was committed with its
    last transaction. Cut short in any way, the same command begins anew; until then the old state is there.
    """
    with rebuilt_job(job, url, state_dir, (inputs, outputs)) as found:
        check_not_replayed(found.topology.job, found.broker.admin.describe_topics())
        clock = SystemClock()
        began_ms = clock.monotonic_ms()
        with progress_shown(found.name, as_json=as_json) as told:
            restorer = Restorer(found.topology, found.broker, fs=SystemFileSystem(), clock=clock, told=told)
            restored = restorer.restore(found.state_dir)
        seconds = (clock.monotonic_ms() - began_ms) / 1000
    if as_json:
        stores = [as_object(store) for store in restored]
        click.echo(orjson.dumps({"stores": stores, "seconds": round(seconds, 3), "finished": True}))
        return
    record_count = sum(store.record_count for store in restored)
    tasks = len({store.task for store in restored})
    click.echo(
        f"{found.name}: restored {tasks} tasks from {record_count:,} changelog records, {seconds:.2f} s, "
        f"in {found.state_dir}"
    )
    for store in restored:
        click.echo(store_line(store))
