"""The runtime: nothing in here knows of Django or of the web around it. See docs/architecture.md for its layers."""
