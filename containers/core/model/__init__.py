"""What a container is asked to be, and may do, as values with their checks. Pure: the web imports it too."""
