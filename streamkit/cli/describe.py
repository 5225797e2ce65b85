"""`streamkit describe`: what a job compiles to."""

import click
import orjson

from streamkit.cli.load import load_job
from streamkit.topology import compile_graph
from streamkit.topology import describe as describe_topology
from streamkit.topology.dot import to_dot

__all__ = ["describe"]


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--dot", "as_dot", is_flag=True, help="Print a graph for Graphviz.")
def describe(job: str, as_json: bool, as_dot: bool) -> None:
    """Show the sub-topologies, stores, topics, spellings and combiners of JOB, a module or a file."""
    if as_json and as_dot:
        raise click.UsageError("--json and --dot exclude each other")
    description = describe_topology(compile_graph(load_job(job).build()))
    if as_json:
        click.echo(orjson.dumps(description.to_json(), option=orjson.OPT_INDENT_2))
    elif as_dot:
        click.echo(to_dot(description), nl=False)
    else:
        click.echo(description.to_text())
