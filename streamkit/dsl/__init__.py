"""What jobs are written in: adds nodes, nothing else."""

from streamkit.dsl import agg
from streamkit.dsl.job import Job
from streamkit.dsl.stream import Grouped, Processed, Stream, Table, WindowedGroup

__all__ = ["Grouped", "Job", "Processed", "Stream", "Table", "WindowedGroup", "agg"]
