"""The examples in docstrings are run."""

import doctest
import importlib

import pytest
from source_files import module_name, python_files

MODULES = [module_name(path) for path in python_files("streamkit") if ">>> " in path.read_text(encoding="utf-8")]


def test_there_are_examples() -> None:
    assert MODULES


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
