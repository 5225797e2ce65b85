"""House rules that no linter knows. A list of exceptions is a ratchet: it may shrink, never grow."""

import ast
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
from source_files import ROOT, calls, dotted, imports, module_name, pages, python_files, shown, tree, words

pytestmark = pytest.mark.slow  # whichever comes first parses every file

SOURCE = python_files("streamkit", "connectors", "jobs", "tools", "benchmarks")
TESTS = python_files("tests")
LIBRARY = python_files("streamkit")

FILE_LINES_MAX, FUNCTION_LINES_MAX, CLASS_LINES_MAX, CLASS_METHODS_MAX, PARAMETERS_MAX = 500, 70, 350, 20, 6
JOB_LINES_MAX = 80

LONGER_FILES = {"tests/contract/test_broker_contract.py": 582}
"""Files that are longer than the rule allows, and how long they are: split them, and take them off."""

MORE_PARAMETERS = {"streamkit.errors.RecordError"}
"""A bad record is named by topic, partition, offset and node, and shown by its first bytes."""

BANNED_CALLS = {
    "time.time": "take a Clock",
    "time.monotonic": "take a Clock",
    "datetime.now": "take a Clock",
    "datetime.utcnow": "take a Clock",
    "datetime.today": "take a Clock",
    "date.today": "take a Clock",
    "open": "take a FileSystem",
    "print": "return it; printing is the command line's",
    "eval": "parse it",
    "exec": "load it as a module",
}
ALLOWED_CALLS = {"streamkit/seams": set(BANNED_CALLS), "streamkit/cli": {"print", "open"}}
"""The seams' own system versions; and a command line reads the files that it is given, and prints."""

BANNED_IN_TESTS = re.compile(r"\bunittest\.mock\b|(?<!\w)random\.(random|randint|choices?)\(")
SLEEPS = {"tests/integration/test_sigkill.py": 3}
"""Tests that sleep, and how often: each waits for another process that has nothing to wait on."""

SYNONYMS = {
    "app", "flow", "pipeline", "message", "chunk", "bucket", "slot", "agent", "tick", "cron", "lane", "collection",
    "ktable", "lateness", "backfill", "reprocess", "ack", "reader", "backup",
}  # fmt: skip
"""Words that the glossary rejects for a word of ours."""


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]


def line_count(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def file_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    longer = {shown(path): file_lines(path) for path in [*SOURCE, *TESTS] if file_lines(path) > FILE_LINES_MAX}
    grown = {name: lines for name, lines in longer.items() if lines > LONGER_FILES.get(name, FILE_LINES_MAX)}
    assert grown == {}, "split them by what they are responsible for"
    assert set(LONGER_FILES) <= set(longer), "an exception is no longer needed"


def test_most_files_and_functions_are_short() -> None:
    files = [file_lines(path) for path in LIBRARY]
    lines = [line_count(node) for path in LIBRARY for node in functions(path)]
    assert statistics.median(files) <= 130
    assert statistics.quantiles(files, n=10)[-1] <= 300
    assert statistics.quantiles(lines, n=20)[-1] <= 40


@pytest.mark.slow
def test_no_function_is_longer_than_a_screen() -> None:
    longer = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in [*SOURCE, *TESTS]
        for node in functions(path)
        if line_count(node) > FUNCTION_LINES_MAX
    ]
    assert longer == []


def test_no_class_does_too_much() -> None:
    larger = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in SOURCE
        for node in classes(path)
        if line_count(node) > CLASS_LINES_MAX
        # The overloads of a method are one method.
        or len({part.name for part in node.body if isinstance(part, ast.FunctionDef) and part.name[0] != "_"})
        > CLASS_METHODS_MAX
    ]
    assert larger == []


def test_no_function_takes_more_parameters_than_one_remembers() -> None:
    exceptions = {name.rpartition(".")[2] for name in MORE_PARAMETERS}
    inits = {id(part) for path in SOURCE for node in classes(path) if node.name in exceptions for part in node.body}
    more = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in LIBRARY
        if not shown(path).startswith("streamkit/cli/")  # a command has a parameter for each of its options
        for node in functions(path)
        if id(node) not in inits and parameter_count(node) > PARAMETERS_MAX
    ]
    assert more == [], "gather what belongs together in a frozen value"


def parameter_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
    return len([name for name in names if name not in ("self", "cls")])


def test_a_job_fits_on_a_screen() -> None:
    assert {shown(path): file_lines(path) for path in python_files("jobs") if file_lines(path) > JOB_LINES_MAX} == {}


def test_the_library_reads_time_opens_files_and_prints_in_their_places_alone() -> None:
    found = [
        f"{shown(path)}:{line} {name}: {BANNED_CALLS[name]}"
        for path in LIBRARY
        for line, name in calls(tree(path))
        if name in BANNED_CALLS and name not in allowed(path)
    ]
    assert found == []


def allowed(path: Path) -> set[str]:
    return next((names for place, names in ALLOWED_CALLS.items() if shown(path).startswith(f"{place}/")), set())


def test_tests_use_the_real_thing_and_draw_from_seeds() -> None:
    texts = {shown(path): path.read_text(encoding="utf-8") for path in TESTS if path != Path(__file__)}
    assert {name: BANNED_IN_TESTS.findall(text) for name, text in texts.items() if BANNED_IN_TESTS.search(text)} == {}


def test_tests_do_not_sleep() -> None:
    counted = Counter(shown(path) for path in TESTS for _, name in calls(tree(path)) if name == "time.sleep")
    assert dict(counted) == SLEEPS, "wait on a condition, or on a manual clock"


def test_what_is_imported_is_imported_always() -> None:
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in [*SOURCE, *TESTS]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Name | ast.Attribute) and dotted(node).endswith("TYPE_CHECKING")
    ]
    assert found == [], "a cycle between modules is mended by moving what both need"


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(re.compile(r"# (?:noqa|type: ignore)(?!: \w+\d|\[[\w, -]+\])"), id="names its rule"),
        pytest.param(
            re.compile(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\])\s*(?!  # \w)$"), id="gives its reason"
        ),
        pytest.param(re.compile(r"\b(?:TODO|FIXME|XXX)\b(?! \(#\d+\))"), id="a thing to do names its issue"),
    ],
)
def test_every_exception_says_why(pattern: re.Pattern[str]) -> None:
    found = [
        f"{shown(path)}:{number}"
        for path in [*SOURCE, *TESTS]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_class_names_are_unique() -> None:
    counted = Counter(node.name for path in LIBRARY for node in classes(path))
    assert [name for name, count in counted.items() if count > 1] == []


def test_every_module_is_imported_by_something() -> None:
    names = {module_name(path) for path in LIBRARY if path.name != "__main__.py"}
    imported = {name for path in [*SOURCE, *TESTS] for name in imports(tree(path))}
    unused = [name for name in names if not any(f"{one}.".startswith(f"{name}.") for one in imported)]
    assert unused == []


def test_no_name_is_a_word_that_the_glossary_rejects() -> None:
    public = {
        (shown(path), node.name)
        for path in LIBRARY
        for node in [*classes(path), *functions(path)]
        if not node.name.startswith("_")
    }
    assert sorted(f"{place}: {name}" for place, name in public if words(name) & SYNONYMS) == []


def test_every_path_named_in_the_docs_exists() -> None:
    missing = sorted(
        f"{shown(page)}: {name}" for page in pages() for name in named_paths(page) if not exists(page, name)
    )
    assert missing == []


def named_paths(page: Path) -> set[str]:
    """Return the targets of links, and what stands in backticks and has the form of a path of this project."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    quoted = re.findall(r"`((?:streamkit|jobs|connectors|tests|docs|benchmarks|tools|changelog\.d)/[\w./-]+)`", text)
    return {*links, *quoted}


def exists(page: Path, name: str) -> bool:
    return (page.parent / name).exists() or (ROOT / name).exists()


def test_every_fragment_of_the_changelog_has_a_kind() -> None:
    names = [path.name for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert [name for name in names if not re.fullmatch(r"[\w-]+\.(added|changed|fixed|removed)\.md", name)] == []
