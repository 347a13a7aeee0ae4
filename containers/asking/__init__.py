"""From what somebody asks for to an operation in the queue: rights, checks, reservations."""
