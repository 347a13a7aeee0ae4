"""What can be done with a container, one module a subject. It runs in workers and commands of the host's root."""
