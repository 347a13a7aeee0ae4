"""What exists on this host, as files below the state directory that root alone reads. See core.host for the paths."""
