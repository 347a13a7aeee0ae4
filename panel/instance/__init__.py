"""Running an instance: its environment, its directories, its Redis, its processes. Nothing here serves a page."""
