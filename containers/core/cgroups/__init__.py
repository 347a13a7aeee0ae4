"""Cgroups of one instance: open(host) gives the API for the version this host has."""

from .base import Cgroups
from .detect import open, open_named
from .places import Joined, join

__all__ = ["Cgroups", "Joined", "join", "open", "open_named"]
