"""Answers of servers that may be hostile, brought here by a process that has nothing.

``process`` is that confined process: it speaks TLS and HTTP over connections that it is given. ``asking`` starts it,
gives it the connections, and is the only part of it that runs as the host's root.
"""
