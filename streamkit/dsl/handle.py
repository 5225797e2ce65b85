"""What the decorated name becomes: a node's handle, with the function still at `.fn`."""

from typing import Any

from streamkit.dsl.builder import Builder

__all__ = ["Handle"]


class Handle:
    """One node of one job. `fn` is the function that was decorated."""

    def __init__(self, job: Builder, name: str, fn: Any = None) -> None:
        """Refer to a node that the job has."""
        self._job, self.name, self.fn = job, name, fn
        self.__doc__ = getattr(fn, "__doc__", None) or type(self).__doc__

    @property
    def job(self) -> Builder:
        """The job the node belongs to."""
        return self._job

    def __repr__(self) -> str:
        """Show kind, job and name."""
        return f"<{type(self).__name__} {self._job.name}.{self.name}>"
