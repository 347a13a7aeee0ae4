"""Files of one container, seen and changed from within its own user namespace and its own root.

For core.proc.filer, which is confined before it calls any of this. The tree is hostile and may change between any two
calls: paths are resolved by the kernel below the root (openat2, RESOLVE_IN_ROOT), what is done is done relative to a
directory descriptor and one name, and what is not a regular file or a directory is never opened.
"""
