"""From the broker URLs of a Faust app to the one URL of a streamkit broker."""

from collections.abc import Sequence
from typing import Any, Final

from faust.utils.urls import urllist
from yarl import URL

from streamkit.errors import ConfigError

__all__ = ["PREFIX", "broker_url", "url_as_written"]

PREFIX: Final = "streamkit+"
"""Before the scheme of a streamkit broker; `pyproject.toml` registers the three schemes with Faust."""


def broker_url(urls: Sequence[URL], written: Any = None) -> str:
    """Return the URL for `open_broker`.

    Args:
        urls: As Faust parsed them. It writes the first part of a relative directory in small letters, and drops the
            slashes before an absolute one.
        written: What the user wrote, if it is known and text: a directory is taken from it as it stands.

    Raises:
        ConfigError: The URLs name several logs, or a directory that no URL can.
    """
    first = urls[0]
    scheme = first.scheme.removeprefix(PREFIX)
    if scheme == "kafka":
        servers = ",".join(f"{url.host}:{url.port or 9092}" for url in urls)
        return f"kafka://{servers}{_query(first)}"
    if len(urls) > 1 or first.fragment:
        shown = ",".join(map(str, urls))
        raise ConfigError(f"{shown!r} does not name one log", hint="the path of a log has no comma, semicolon or #")
    if isinstance(written, str) and written.startswith(f"{PREFIX}{scheme}://") and urllist(written) == list(urls):
        return written.removeprefix(PREFIX)
    return f"{scheme}://{first.host or ''}{first.path.rstrip('/')}{_query(first)}"


def url_as_written(app: Any) -> Any:
    """Return what the user gave a Faust app as its broker, None if it came from elsewhere."""
    return app._default_options[1].get("broker")  # noqa: SLF001  # Faust keeps it nowhere else; a contract test


def _query(url: URL) -> str:
    return f"?{url.query_string}" if url.query_string else ""
