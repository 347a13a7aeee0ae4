"""The web's ends of a host's sockets: its supervisors, and its ticker with what it measured."""
