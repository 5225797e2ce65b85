"""No cycles, and the world is reached through the seams alone. The layers are import contracts, kept by `make lint`."""

import tomllib
from graphlib import TopologicalSorter

import pytest
from source_files import ROOT, imports, module_name, python_files, shown, tree

pytestmark = pytest.mark.slow  # whichever comes first parses every file

LIBRARY = python_files("streamkit")

WORLD = {
    "os", "time", "random", "secrets", "uuid", "pathlib", "tempfile", "shutil", "fcntl", "mmap", "socket", "subprocess",
    "asyncio", "signal",
}  # fmt: skip
"""What reads a clock, draws a number, or touches files, processes and the network."""

DOORS = {
    "streamkit/state/rocksdb.py": {"os"},  # RocksDB opens its files itself, by their path
    "streamkit/runtime/service.py": {"asyncio"},  # a worker is a service of an event loop
    "streamkit/runtime/operators/async_map.py": {"asyncio"},  # it awaits coroutines; the loop they run on is a seam
    "streamkit/broker/kafka/": {"asyncio"},  # a Kafka client is an event loop with connections
    "streamkit/broker/settings_file.py": {"os"},  # the connection is set up by the environment and by a file
    "streamkit/hosts/": {"os", "asyncio"},  # a host has an event loop; and a directory may be written in several ways
    "streamkit/cli/workers.py": {"os", "signal", "subprocess"},  # where worker processes are started
    "streamkit/cli/": {"os", "pathlib", "signal", "asyncio"},  # where paths are given, jobs loaded and signals met
}


def test_every_outside_package_of_one_door_has_a_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    forbidden = {name for contract in contracts for name in contract.get("forbidden_modules", [])}
    assert {"rocksdict", "aiokafka", "faust", "click", "rich", "jobs", "connectors"} <= forbidden


def test_no_module_imports_itself_by_a_detour() -> None:
    names = {module_name(path) for path in LIBRARY}
    graph = {
        module_name(path): {owner(name, names) for name in imports(tree(path))} - {"", module_name(path)}
        for path in LIBRARY
        if path.name != "__init__.py"  # what a package gathers, its modules may use each from another
    }
    TopologicalSorter(graph).prepare()


def owner(name: str, names: set[str]) -> str:
    """Return the module that an imported name is or lies in, "" if it is not ours."""
    return next((module for module in (name, name.rpartition(".")[0]) if module in names), "")


def test_the_world_is_reached_through_the_seams_alone() -> None:
    found = [
        f"{shown(path)}: {name}"
        for path in LIBRARY
        if not shown(path).startswith("streamkit/seams/")
        for name in {name.partition(".")[0] for name in imports(tree(path))} & WORLD - door(shown(path))
    ]
    assert found == []


def door(name: str) -> set[str]:
    """Return what a file may import of the world."""
    return next((allowed for place, allowed in DOORS.items() if name.startswith(place)), set())
