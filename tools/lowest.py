"""Print `name==floor` for every dependency of pyproject.toml, to install the oldest versions that it promises."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+(?:\[[a-z,]+\])?)>=(?P<floor>[0-9.]+)(?:,<[0-9.]+)?")


def floors(pyproject: Path) -> Iterator[str]:
    """Yield the pins of the dependencies and of the test extra; one without a floor stops the tool."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        match = FLOOR.fullmatch(requirement)
        if match is None:
            sys.exit(f"{pyproject}: {requirement!r} has no floor of the form name>=version")
        yield f"{match['name']}=={match['floor']}"


if __name__ == "__main__":
    print("\n".join(floors(Path(__file__).resolve().parent.parent / "pyproject.toml")))
