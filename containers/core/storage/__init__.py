"""Layers, how they are stacked to a root directory, and disks of a fixed size."""
