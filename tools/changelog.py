"""Move the fragments in changelog.d into CHANGELOG.md, under a version and a date: `changelog.py VERSION DATE`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed", "removed")


def fragments(directory: Path) -> list[Path]:
    """Return the fragments by kind and name; a file that is none stops the tool."""
    found = [path for path in directory.iterdir() if path.name != "README.md"]
    for path in found:
        if path.suffixes not in [[f".{kind}", ".md"] for kind in KINDS]:
            sys.exit(f"{path}: a fragment is called NAME.KIND.md, KIND one of {', '.join(KINDS)}")
    return sorted(found, key=lambda path: (KINDS.index(path.suffixes[0][1:]), path.name))


def section(version: str, date: str, paths: list[Path]) -> str:
    """Return the text of one release."""
    lines = [f"## {version} ({date})"]
    for kind in KINDS:
        texts = [path.read_text(encoding="utf-8") for path in paths if path.suffixes[0] == f".{kind}"]
        if texts:
            lines += ["", f"### {kind.capitalize()}", "", *(f"- {' '.join(text.split())}" for text in texts)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the section above the last release, and delete the fragments."""
    version, date = sys.argv[1:]
    paths = fragments(ROOT / "changelog.d")
    changelog = ROOT / "CHANGELOG.md"
    head, mark, releases = changelog.read_text(encoding="utf-8").partition("\n## ")
    changelog.write_text(f"{head.rstrip()}\n\n{section(version, date, paths)}{mark}{releases}", encoding="utf-8")
    for path in paths:
        path.unlink()


if __name__ == "__main__":
    main()
