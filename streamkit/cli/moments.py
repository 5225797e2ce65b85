"""Moments on the command line."""

from datetime import UTC, datetime

import click

__all__ = ["moment_ms"]


def moment_ms(text: str, others: str) -> int:
    """Return a time as ms since 1970; it is ISO 8601, UTC unless it says otherwise.

    Args:
        text: What was typed.
        others: What else it might have been, for the error.

    Raises:
        click.BadParameter: It is no such time, or lies before 1970.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither {others} a time such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment.timestamp() < 0:
        raise click.BadParameter(f"{text!r} lies before 1970")
    return round(moment.timestamp() * 1000)
