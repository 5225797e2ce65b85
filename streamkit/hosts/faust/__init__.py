"""Faust as a host: Faust apps on streamkit's log instead of Kafka.

`faust.App(broker="streamkit+log://DIR")` needs no import of this package: Faust finds the driver by its entry point.
Every name of Faust's that is not public, and that this package relies on, has a contract test.
"""
