"""The rules that every test runs under: seeds are printed, slow tests say so, what the machine lacks is said loudly."""

import faulthandler
import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings
from kafka_cluster import kafka_cluster
from kafka_tools import missing_tools

CPU_SECONDS_MAX = 2.0
"""A test without the marker `slow` fails beyond this. Eight times what the rule says, so that a slow machine passes."""

STOP_SECONDS = 960.0
"""A test this long ends the whole run, with all stacks: Hypothesis calls a test again that its timeout has failed."""

EXAMPLES = {"dev": 50, "ci": 500, "nightly": 10_000}
CI_SEED = 20_261_125
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")

for name, count in EXAMPLES.items():
    settings.register_profile(name, max_examples=count, deadline=None, derandomize=False, print_blob=True)
settings.load_profile(PROFILE)

_DESELECTED = pytest.StashKey[list[str]]()
_STDERR = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose Hypothesis' seed here, before its plugin looks for one, so that it can be printed.

    A merge is judged by what it changes: CI draws the same examples each time. All other runs draw new ones.
    """
    if config.option.hypothesis_seed is None:
        drawn = random.SystemRandom().getrandbits(32)
        config.option.hypothesis_seed = str(CI_SEED if PROFILE == "ci" else drawn)
    config.stash[_STDERR] = os.dup(2)  # later it is that of a test


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process, loudly, if a thread keeps it after all is said."""
    if config.getoption("timeout") != 0:
        faulthandler.dump_traceback_later(60, exit=True, file=config.stash[_STDERR])


def _stop_later(node: pytest.Item) -> None:
    if node.config.getoption("timeout") != 0:
        faulthandler.dump_traceback_later(STOP_SECONDS, exit=True, file=node.config.stash[_STDERR])


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Go on where pytest has just taken back what would end a test: its teardown is to come."""
    if isinstance(node, pytest.Item):
        _stop_later(node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """End the whole run, loudly, where a test does not end."""
    _stop_later(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_report_header(config: pytest.Config) -> str:
    seed = config.option.hypothesis_seed
    return f"hypothesis: profile {PROFILE}, {EXAMPLES[PROFILE]} examples; again with --hypothesis-seed={seed}"


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The address of a real Kafka: the one that STREAMKIT_TEST_KAFKA names, or a broker of this run."""
    given = os.environ.get("STREAMKIT_TEST_KAFKA")
    if given:
        yield given
        return
    with kafka_cluster() as cluster:
        yield cluster.bootstrap


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs programs that are not here. CI must have them."""
    said = []
    lacking = missing_tools()
    if lacking and os.environ.get("CI") != "true":
        marks = {"java"} if os.environ.get("STREAMKIT_TEST_KAFKA") else {"java", "kafka"}
        said.append(_without(config, items, marks, f"against a real Kafka, for want of {lacking}"))
    config.stash[_DESELECTED] = [line for line in said if line]


def _without(config: pytest.Config, items: list[pytest.Item], marks: set[str], why: str) -> str:
    """Deselect the tests with one of the marks; return what is to be said about it."""
    without = [item for item in items if any(mark.name in marks for mark in item.iter_markers())]
    items[:] = [item for item in items if item not in without]
    if without:
        config.hook.pytest_deselected(items=without)
    return f"NOT RUN: {len(without)} tests {why}" if without else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_DESELECTED, []):
        terminalreporter.write_line(line, red=True, bold=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that is slow and does not say so; how long a property takes is a matter of the profile."""
    begin = time.process_time()
    result = yield
    seconds = time.process_time() - begin
    excused = item.get_closest_marker("slow") or item.get_closest_marker("hypothesis")
    if seconds > CPU_SECONDS_MAX and not excused:
        pytest.fail(f"took {seconds:.1f} s of CPU: mark it slow, or make it faster")
    return result
