"""The project's own files, as the tests of its shape see them."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_files(*directories: str) -> list[Path]:
    """Return the Python files below the directories."""
    return sorted(path for directory in directories for path in (ROOT / directory).rglob("*.py"))


def pages() -> list[Path]:
    """Return README and every page of documentation, wherever it lies."""
    return sorted(
        [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("changelog.d/*.md"),
            *ROOT.glob("streamkit/**/*.md"),
        ]
    )


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """Return the path as a message names it."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Return the dotted name of a Python file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def calls(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every call whose function is spelled as a name."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield node.lineno, name


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for an expression of that form, "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def imports(module: ast.Module) -> Iterator[str]:
    """Yield every dotted name that a module imports, `from a import b` as `a.b`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def words(name: str) -> set[str]:
    """Return the words of a name, in lower case: `TaskRunner` and `task_runner` are task and runner."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
