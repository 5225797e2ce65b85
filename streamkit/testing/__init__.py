"""What people test their jobs with: the production task loop on an in-memory broker, with a manual clock."""

from streamkit.errors import RowWiseError
from streamkit.testing.driver import TestDriver
from streamkit.testing.merges import check_merge

__all__ = ["RowWiseError", "TestDriver", "check_merge"]
