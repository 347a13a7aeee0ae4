"""Plain directories, and all that a container is made of is copied into its pool: it needs no other.

The data is shared where the file system has reflinks and holds both. What is in the pool already, of a clone's origin
or of a snapshot, is shared as everywhere.
"""

from __future__ import annotations

from .overlay import copy, make, problem, remove

__all__ = ["AT_ONCE", "WHOLE", "copy", "make", "problem", "remove"]

AT_ONCE = False
WHOLE = True
