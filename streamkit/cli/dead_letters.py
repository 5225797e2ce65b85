"""`streamkit dead-letters`: what a job set aside, and sending it back."""

from typing import Any, Final

import click
import orjson

from streamkit.cli.broker import broker_option, opened
from streamkit.cli.load import load_job
from streamkit.errors import ConfigError
from streamkit.records import Header
from streamkit.runtime.dead_letters import DeadLetter, read_letters, retry_letters

__all__ = ["dead_letters"]

_REASON_WIDTH: Final = 100


@click.group("dead-letters")
@click.argument("job")
@click.pass_context
def dead_letters(context: click.Context, job: str) -> None:
    """List, show and retry the records that JOB set aside with on_error="dead_letter"."""
    context.obj = load_job(job).name


@dead_letters.command("list")
@click.option("--all", "every", is_flag=True, help="Those that were sent back too.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a JSON object, with key, value and headers.")
@broker_option
@click.pass_obj
def list_(name: str, every: bool, as_json: bool, url: str) -> None:
    """List the dead letters: a line each, with its id, where the record was, the node and the reason."""
    with opened(url) as broker:
        letters = [letter for letter in read_letters(broker, name) if every or not letter.retried]
    if as_json:
        for letter in letters:
            click.echo(orjson.dumps(_as_object(letter)))
        return
    for letter in letters:
        click.echo("\t".join(_cells(letter)))
    if not letters:
        click.echo(f"{name}: no dead letters")


@dead_letters.command()
@click.argument("id_", metavar="ID")
@broker_option
@click.pass_obj
def show(name: str, id_: str, url: str) -> None:
    """Show the dead letter ID in full."""
    with opened(url) as broker:
        found = next((letter for letter in read_letters(broker, name) if letter.id == id_), None)
    if found is None:
        raise ConfigError(
            f"the job {name!r} has no dead letter {id_!r}", hint="streamkit dead-letters JOB list shows their ids"
        )
    for field, value in _as_object(found).items():
        said = orjson.dumps(value).decode() if isinstance(value, list) else value
        click.echo(f"{field}: {said}")


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that were not sent back before.")
@broker_option
@click.pass_obj
def retry(name: str, ids: tuple[str, ...], every: bool, url: str) -> None:
    """Send dead letters back to the end of the partitions they came from, where the job reads them again.

    Each is sent back once, however often this command is cut short and given again.
    """
    if every == bool(ids):
        raise click.UsageError("name the dead letters to retry, or say --all")
    with opened(url) as broker:
        sent_count, before_count = retry_letters(broker, name, None if every else ids)
    click.echo(f"{name}: {sent_count:,} sent back" + (f", {before_count:,} had been before" if before_count else ""))


def _cells(letter: DeadLetter) -> list[str]:
    first = letter.reason.partition("\n")[0]
    reason = first if len(first) <= _REASON_WIDTH else f"{first[:_REASON_WIDTH]} …"
    place = f"{letter.source} offset {letter.source_offset}"
    if letter.table is not None:
        place = f"table {letter.table}, after {place}"
    sent = ["sent back"] if letter.retried else []
    return [letter.id, place, letter.node, f"attempt {letter.attempt}", reason, *sent]


def _as_object(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "topic": letter.source.topic,
        "partition": letter.source.partition,
        "offset": letter.source_offset,
        "node": letter.node,
        "reason": letter.reason,
        "attempt": letter.attempt,
        "table": letter.table,
        "retried": letter.retried,
        "timestamp_ms": letter.timestamp_ms,
        "key": _text(letter.key),
        "value": _text(letter.value),
        "headers": [_header(header) for header in letter.headers],
    }


def _header(header: Header) -> list[str | None]:
    return [header[0], _text(header[1])]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
