"""The processes that belong to containers: launcher, starters, supervisors, and what joins a running one."""
