"""`streamkit describe`: what a job compiles to."""

import click
import orjson

from streamkit.cli.load import load_job
from streamkit.topology import compile_graph
from streamkit.topology import describe as describe_topology

__all__ = ["describe"]


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def describe(job: str, as_json: bool) -> None:
    """Show the sub-topologies, stores, topics, spellings and combiners of JOB, a module or a file."""
    description = describe_topology(compile_graph(load_job(job).build()))
    if as_json:
        click.echo(orjson.dumps(description.to_json(), option=orjson.OPT_INDENT_2))
    else:
        click.echo(description.to_text())
