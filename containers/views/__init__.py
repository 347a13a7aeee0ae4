"""The pages of containers: the list, one container's tabs, what is asked of them, and the form for a new one."""
