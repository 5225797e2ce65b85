"""Other frameworks as hosts: jobs inside their processes, and their programs on streamkit's log.

Nothing here is imported by `import streamkit`: a host's package is loaded by whoever names it.
"""

from streamkit.hosts.leases import Lease, lease

__all__ = ["Lease", "lease"]
