"""Faust as a host: a job as a service of a Faust app, and Faust apps on streamkit's log instead of Kafka.

`faust.App(broker="streamkit+log://DIR")` needs no import of this package: Faust finds the driver by its entry point.
Every name of Faust's that is not public, and that this package relies on, has a contract test.
"""

from streamkit.hosts.faust.mounting import mount

__all__ = ["mount"]
