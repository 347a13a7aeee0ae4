"""What a container comes to on a host, as data: mounts, cgroup files, rules of devices, profiles. Pure."""
