"""What the worker does: one handler per action, run by the runner. The web process never imports this package."""
