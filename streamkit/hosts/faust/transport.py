"""Faust's transport on a streamkit broker: the driver behind `faust.App(broker="streamkit+log://DIR")`.

It refuses at once what it could only do wrong: Faust's exactly-once, its threaded producer. Faust's tables and its
client-only mode are refused when the consumer starts.

Not here: what is read (`consumer`) and written (`producer`).
"""

from typing import Any, ClassVar, Final

from faust.transport import base
from yarl import URL

from streamkit.errors import ConfigError
from streamkit.hosts.faust.consumer import BrokerConsumer
from streamkit.hosts.faust.producer import BrokerProducer
from streamkit.hosts.faust.urls import broker_url, url_as_written

__all__ = ["BrokerTransport"]

_RESUBSCRIBE_AFTER_S: Final = 5.0
"""Longer than the 3 s after which Faust's listener to replies begins: a listener that comes later is not noticed."""


class BrokerConductor(base.Conductor):
    """Subscribes to new topics after five seconds instead of Faust's 45: reading on costs one commit here."""

    _resubscribe_sleep_lock_seconds = _RESUBSCRIBE_AFTER_S


class BrokerTransport(base.Transport):
    """What Faust makes consumers and producers with.

    Args:
        url: The broker URLs of the app, as Faust parsed them.
        app: The Faust app.

    Raises:
        ConfigError: The URLs name no single log, or the app asks for what is not supported.
    """

    Consumer: ClassVar[type[BrokerConsumer]] = BrokerConsumer
    Producer: ClassVar[type[BrokerProducer]] = BrokerProducer
    Conductor: ClassVar[type[BrokerConductor]] = BrokerConductor
    driver_version = "streamkit"

    def __init__(self, url: list[URL], app: Any, loop: Any = None) -> None:
        """Check what the app asks for; open nothing."""
        super().__init__(url, app, loop)
        self.broker_url = broker_url(url, url_as_written(app))
        if app.conf.processing_guarantee.value == "exactly_once":
            raise ConfigError(
                f"processing_guarantee='exactly_once' is not supported on {self.broker_url}",
                detail="Faust commits offsets outside of the transaction that its outputs are in",
                hint='use "at_least_once", and make what must be exactly once a streamkit job: mount(app, job)',
            )
        if app.conf.producer_threaded:
            raise ConfigError(
                f"producer_threaded is not supported on {self.broker_url}",
                hint="leave it out: records are written on a thread of their own anyway",
            )
