"""Exit codes, by what the user does next."""

from typing import Final

from streamkit.errors import Answer, LogLockedError, StoreLockedError, StreamkitError, UnknownTopicError

__all__ = ["FAILED", "IN_USE", "REFUSED", "SIGNALLED", "exit_code"]

FAILED: Final = 1
REFUSED: Final = 2
IN_USE: Final = 3
SIGNALLED: Final = 128
"""Plus the signal's number, as shells have it."""


def exit_code(error: StreamkitError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, LogLockedError | StoreLockedError):
        return IN_USE
    if error.answer is Answer.REFUSE or isinstance(error, UnknownTopicError):
        return REFUSED
    return FAILED
