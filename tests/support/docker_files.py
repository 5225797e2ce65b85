"""`Dockerfile` and `docker-compose.yml`, parsed: what a test looks at or runs is what stands in them."""

import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from source_files import ROOT

KAFKA_PREFIX: Final = "KAFKA_"


@dataclass
class Stage:
    """One stage of a Dockerfile: its base image, its name, and its instructions with their arguments, in order."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for one, argument in self.steps if one == instruction]


def stages() -> list[Stage]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: list[Stage] = []
    for line in filter(str.strip, lines):
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            image, *named = shlex.split(argument)
            found.append(Stage(image, named[1] if named else ""))
        else:
            found[-1].steps.append((instruction, argument))
    return found


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return parsed


def brokers() -> dict[str, dict[str, Any]]:
    """Return the services that are Kafka brokers."""
    return {name: one for name, one in compose()["services"].items() if one["image"].startswith("apache/kafka:")}


def clients() -> dict[str, dict[str, Any]]:
    """Return the services that are streamkit."""
    return {name: one for name, one in compose()["services"].items() if "build" in one}


def settings(broker: dict[str, Any]) -> dict[str, str]:
    """Return a broker's settings by Kafka's names, as the image makes them of the environment."""
    return {
        name.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in broker["environment"].items()
        if name.startswith(KAFKA_PREFIX)
    }


def listeners(text: str) -> dict[str, tuple[str, int]]:
    """Return host and port of each listener by its name."""
    found = (re.fullmatch(r"(\w+)://([\w.-]*):(\d+)", one) for one in text.split(","))
    return {one[1]: (one[2], int(one[3])) for one in found if one is not None}
