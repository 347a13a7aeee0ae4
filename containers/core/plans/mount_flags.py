"""The flags of mount(2), as the kernel spells them. Source: include/uapi/linux/mount.h."""

from __future__ import annotations

from typing import Final

MS_BIND: Final = 0x1000
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOSUID: Final = 2
MS_PRIVATE: Final = 0x40000
MS_RDONLY: Final = 1
MS_REC: Final = 0x4000
MS_RELATIME: Final = 0x200000
MS_REMOUNT: Final = 0x20
MS_SHARED: Final = 0x100000
MS_SLAVE: Final = 0x80000
