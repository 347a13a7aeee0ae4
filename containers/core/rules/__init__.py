"""What the host's administrator allows: the policy file, and the check of a configuration against it."""
