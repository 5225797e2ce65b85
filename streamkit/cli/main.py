"""The `streamkit` command: its groups, and what an error becomes."""

import gc
import os
import signal
import sys
from typing import Final

import click

from streamkit.cli.consume import consume
from streamkit.cli.dead_letters import dead_letters
from streamkit.cli.describe import describe
from streamkit.cli.exits import FAILED, SIGNALLED, exit_code
from streamkit.cli.lock import lock
from streamkit.cli.log import log
from streamkit.cli.produce import produce
from streamkit.cli.replay import replay
from streamkit.cli.restore import restore
from streamkit.cli.run import run
from streamkit.cli.shards import shards
from streamkit.cli.topics import topics
from streamkit.cli.verify import verify
from streamkit.errors import StreamkitError

__all__ = ["main"]

_COLLECT_EVERY: Final = 10_000
"""Objects, in place of 700: a batch of rows is more than that, and holds no cycles."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamkit", prog_name="streamkit")
def streamkit() -> None:
    """Stream-first data processing over a Kafka-compatible log.

    \b
    Exit codes:
      0    done; a worker without --bounded that was asked to stop
      1    stopped by an error: a bad record, a failed write, damage
      2    refused before anything was done: usage, settings, the job module, an unknown topic
      3    the log or the state is in use by another process
      130  cut short by Ctrl-C (143: a bounded run by SIGTERM); the same command goes on
    """  # noqa: D301  # a backspace is how click is told not to wrap


for command in (run, topics, produce, consume, describe, lock, shards, dead_letters, restore, verify, replay, log):
    streamkit.add_command(command)


def main() -> None:
    """Run the command line; an error is three lines and an exit code, not a traceback."""
    _open_missing_streams()
    # What was imported stays: nobody need look through it again.
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # polars puts a handler of its own below Python's, after which Ctrl-C no longer ends a read that waits.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(streamkit.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(SIGNALLED + signal.SIGINT)
    except StreamkitError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(exit_code(error))
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)


def _open_missing_streams() -> None:
    """Open what the caller closed: else a log's file would get the number of standard output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # open as long as the process
