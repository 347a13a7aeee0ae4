"""Measurements beside other tools, run by hand: `.venv/bin/python -m tests.bench`. The suite leaves them out."""
