"""What the machine lacks is said in one loud line, and its tests are deselected; with CI=true they run, and fail."""

import os

import pytest
from kafka_tools import missing_tools

_DESELECTED = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = missing_tools()
    java = [item for item in items if item.get_closest_marker("java")]
    if not java or not lacking or os.environ.get("CI") == "true":
        return
    items[:] = [item for item in items if item not in java]
    config.hook.pytest_deselected(items=java)
    config.stash[_DESELECTED] = f"NOT RUN: {len(java)} tests against Kafka's own tools, for want of {lacking}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _DESELECTED in config.stash:
        terminalreporter.write_line(config.stash[_DESELECTED], red=True, bold=True)
