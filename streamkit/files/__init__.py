"""Files of the user's as bounded streams, and sinks as files."""

from streamkit.files.bindings import InputBinding, OutputBinding, input_bindings, output_bindings
from streamkit.files.letters import letters_topic
from streamkit.files.run import PUBLISHING_STEPS, FileRun, FileRunRequest

__all__ = [
    "PUBLISHING_STEPS",
    "FileRun",
    "FileRunRequest",
    "InputBinding",
    "OutputBinding",
    "input_bindings",
    "letters_topic",
    "output_bindings",
]
