"""The verbs of `manage.py ct`: containers from the command line, as whoever is root on the host."""
