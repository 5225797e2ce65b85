"""Groups: the partial results of one aggregation, by window and key, in the spelling the aggregation runs in."""

from streamkit.runtime.groups.base import Groups, Results, RowWindows
from streamkit.runtime.groups.folds import RowFold, fold_for
from streamkit.runtime.groups.frames import FrameGroups
from streamkit.runtime.groups.rows import RowGroups

__all__ = ["FrameGroups", "Groups", "Results", "RowFold", "RowGroups", "RowWindows", "fold_for"]
