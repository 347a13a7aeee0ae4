"""The kernel's calls that Python lacks, and small things made of them: mounts, netlink, filters, files that last."""
