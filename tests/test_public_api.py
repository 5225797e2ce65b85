"""The public surface: small, sorted, documented, and with an answer for every error."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest
from source_files import ROOT, dotted, module_name, python_files, shown, tree

import streamkit
from streamkit import errors
from streamkit.errors import Answer, StreamkitError

LIBRARY = python_files("streamkit")
LAYERS = sorted(module_name(path) for path in LIBRARY if path.name == "__init__.py" and path.parent.name != "streamkit")
NAMES_MAX, LAYER_NAMES_MAX = 30, 15
LARGER_LAYERS = {"streamkit.graph": 32}
"""The graph's nodes and windows are the vocabulary that `dsl` and `runtime` meet in."""

ANSWERS = {
    errors.DefinitionError: Answer.REFUSE,
    errors.RecordError: Answer.POLICY,
    errors.LogError: Answer.STOP,
    errors.StateError: Answer.STOP,
    errors.StoreDamagedError: Answer.RESTORE,
    errors.FileError: Answer.STOP,
    errors.BrokerError: Answer.STOP,
    errors.BrokerUnavailableError: Answer.RETRY,
    errors.ProducerFencedError: Answer.CLOSE_DIRTY,
    errors.CommitFailedError: Answer.CLOSE_DIRTY,
    errors.TaskCorruptedError: Answer.RESTORE,
    errors.TaskMigratedError: Answer.CLOSE_DIRTY,
    errors.RunReplacedError: Answer.STOP,
}
"""What the design says the runtime does; a class that is not here does what the nearest one above it does."""


def error_classes() -> list[type[StreamkitError]]:
    """Return the classes of the tree, the root first."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, StreamkitError)]
    return sorted(found, key=lambda one: len(one.__mro__))


def test_the_public_surface_is_small_and_sorted() -> None:
    assert streamkit.__all__ == sorted(streamkit.__all__)
    assert len(streamkit.__all__) <= NAMES_MAX
    assert [name for name in streamkit.__all__ if not hasattr(streamkit, name)] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_says_what_it_offers_and_offers_little(layer: str) -> None:
    names = getattr(importlib.import_module(layer), "__all__", None)
    if names is not None:
        assert len(names) == len(set(names)) <= LARGER_LAYERS.get(layer, LAYER_NAMES_MAX)


def test_every_path_of_the_reading_order_exists() -> None:
    text = inspect.getdoc(streamkit) or ""
    paths = re.findall(r"^    (\S+)$", text, flags=re.MULTILINE)
    assert paths[0] == "README.md"
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.slow
def test_everything_public_has_a_docstring() -> None:
    bare = [
        f"{shown(path)}:{getattr(node, 'lineno', 1)}"
        for path in LIBRARY
        for node in [tree(path), *public(tree(path))]
        if not ast.get_docstring(node)
    ]
    assert bare == []


def public(
    node: ast.Module | ast.ClassDef,
) -> list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    found = []
    for part in node.body:
        if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
            found += [part, *(public(part) if isinstance(part, ast.ClassDef) else [])]
    return [part for part in found if "overload" not in {getattr(one, "id", "") for one in part.decorator_list}]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "streamkit" / "py.typed").is_file()


def test_every_error_of_the_tree_is_in_the_one_file() -> None:
    tree_names = {one.__name__ for one in error_classes()}
    elsewhere = [
        f"{shown(path)}: {node.name}"
        for path in LIBRARY
        if path.name != "errors.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and {dotted(base).rpartition(".")[2] for base in node.bases} & tree_names
    ]
    assert elsewhere == []


def test_every_error_has_an_answer() -> None:
    for one in error_classes()[1:]:
        above = next((parent for parent in one.__mro__ if parent in ANSWERS), None)
        if one is not errors.TaskError:  # never raised: only its subclasses are
            assert above is not None, f"{one.__name__}: what does the runtime do with it?"
            assert one.answer is ANSWERS[above], one.__name__


def test_an_error_is_retriable_exactly_if_the_answer_is_to_retry() -> None:
    for one in error_classes():
        if issubclass(one, errors.BrokerError):
            assert one.retriable == (one.answer is Answer.RETRY), one.__name__


@pytest.mark.parametrize("one", error_classes())
def test_an_error_says_when_it_is_raised_and_what_to_do(one: type[StreamkitError]) -> None:
    assert one.__name__.endswith("Error")
    when, _, what = (one.__doc__ or "").partition("\n\n")
    assert when.startswith("Raised when ")
    assert what.strip()


def test_the_tree_drawn_in_the_module_is_the_tree_of_the_classes() -> None:
    parents = dict(drawn_tree(errors.__doc__ or ""))
    assert parents == {one.__name__: one.__mro__[1].__name__ for one in error_classes()[1:]}


def drawn_tree(text: str) -> Iterator[tuple[str, str]]:
    """Yield each class below the root and the class that it hangs from; leaves may share a line."""
    above = ["StreamkitError"]
    for branch, line in re.findall(r"^    ([│ ├└─]*[├└]── )(.*)$", text, flags=re.MULTILINE):
        names = re.match(r"(?:[A-Z]\w+Error\b *)+", line)
        depth = len(branch) // 4
        for name in names[0].split() if names else []:
            yield name, above[depth - 1]
            above[depth:] = [name]
