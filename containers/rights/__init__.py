"""Who may do what: the table of roles, and the queries that show everybody his own rows only."""
