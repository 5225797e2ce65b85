"""The command line: one module a command group. Nothing below it prints, or knows a terminal."""

from streamkit.cli.main import main

__all__ = ["main"]
