"""The `streamkit` command: its groups, and what an error becomes."""

import sys

import click

from streamkit.cli.consume import consume
from streamkit.cli.describe import describe
from streamkit.cli.exits import exit_code
from streamkit.cli.log import log
from streamkit.cli.produce import produce
from streamkit.cli.run import run
from streamkit.cli.topics import topics
from streamkit.errors import StreamkitError

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamkit")
def streamkit() -> None:
    """Stream-first data processing over a Kafka-compatible log.

    \b
    Exit codes:
      0    done; a worker without --bounded that was asked to stop
      1    stopped by an error: a bad record, a failed write, damage
      2    refused before anything was done: usage, settings, the job module, an unknown topic
      3    the log or the state is in use by another process
      130  a bounded run was cut short by Ctrl-C (143: by SIGTERM); the same command goes on
    """  # noqa: D301  # a backspace is how click is told not to wrap


for command in (run, topics, produce, consume, describe, log):
    streamkit.add_command(command)


def main() -> None:
    """Run the command line; an error of the library is three lines and an exit code, not a traceback."""
    try:
        streamkit()
    except StreamkitError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(exit_code(error))
