"""Measurements beside other tools, run by hand: `.venv/bin/python -m tests.bench` as root. The suite does not run them."""
