"""Backups: a container as one portable archive. The format is described in docs/backups.md.

``form`` says what such an archive is made of; ``writing`` makes one, ``taking`` reads one back; ``places`` is where
they lie. Neither side ever holds more than a piece of it.
"""
