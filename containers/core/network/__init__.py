"""Bridges, the links of containers, their leases and rules: as they are on the host, and as they should be."""
