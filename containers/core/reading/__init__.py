"""Reading stacks of layers as overlay would show them, without mounting anything: entries, differences, archives.

For processes that live in the container's own user namespace (core.proc.reader). The trees are hostile, and a running
container may change its uppermost layer meanwhile: every step is one name relative to a directory descriptor, symbolic
links are never followed, and what vanishes between two looks is not there.
"""
