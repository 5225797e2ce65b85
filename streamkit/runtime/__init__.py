"""The engine: tasks, their commits, and the worker that runs them."""

from streamkit.runtime.commit import COMMIT_STEPS
from streamkit.runtime.marks import SETUP_STEPS
from streamkit.runtime.opening import OPENING_STEPS
from streamkit.runtime.options import Guarantee, Progress, RunOptions, Summary
from streamkit.runtime.worker import Worker

__all__ = ["COMMIT_STEPS", "OPENING_STEPS", "SETUP_STEPS", "Guarantee", "Progress", "RunOptions", "Summary", "Worker"]
