# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a file's lock, from /proc/locks (proc_locks(5), fs/locks.c: lock_get_status)."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

# 7: FLOCK  ADVISORY  WRITE 17835 fe:00:2165021 0 EOF; who waits has an arrow before the kind. Device in hex.
_LOCK = re.compile(r"[0-9]+: FLOCK +\S+ +\S+ +([0-9]+) ([0-9a-f]+):([0-9a-f]+):([0-9]+) ")


class Holder(NamedTuple):
    """A process, by number and by the name that the kernel has for it (at most 15 characters; None: gone since)."""

    pid: int
    name: str | None


def parse_holder(text: str, major: int, minor: int, inode: int) -> Optional[int]:
    """Return the process that holds the flock(2) of a file; None if none is seen from here (another PID namespace)."""
    for line in text.splitlines():
        match = _LOCK.match(line)
        if match is None:
            continue
        pid, *device, number = match.groups()
        if [int(part, 16) for part in device] == [major, minor] and int(number) == inode and int(pid) > 0:
            return int(pid)
    return None


def lock_holder(root: Root, major: int, minor: int, inode: int) -> Optional[Holder]:
    """Return who holds the flock(2) of the file with this device and inode; None where that cannot be told."""
    pid = parse_holder(root.text("/proc/locks") or "", major, minor, inode)
    return None if pid is None else Holder(pid, root.text("/proc/%d/comm" % pid))
