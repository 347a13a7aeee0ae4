"""The rows' side of what happens: claims, status and events, slots and addresses, rows as specs."""
