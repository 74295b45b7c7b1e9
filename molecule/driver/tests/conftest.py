# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How this scenario looks at the machine: what a driver adds to one, besides what any rollback is about."""

from __future__ import annotations

import pytest
from box import Box

# Packages, DKMS's sources and modules, firmware, loaded modules, groups; no directory of a kernel's own whole.
_DRIVER = """
dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\\n'
dkms status
find /usr/src -maxdepth 1
find /usr/lib/modules/*/extra /usr/lib/modules/*/updates /usr/lib/firmware/axcl 2>/dev/null || true
grep -o '^ax[^ ]*' /proc/modules || true
cat /etc/group /etc/gshadow
ls /dev | grep ^ax || true
ls /var/log | grep axcl || true
"""

# The copies that groupadd and groupdel make of what they change. Like dpkg's own, they are not the driver's.
_COPIES = ("/etc/group-", "/etc/gshadow-")


@pytest.fixture
def found(box: Box) -> dict[str, dict[str, str]]:
    """What the machine is like now."""
    now = box.fingerprint()
    for path in _COPIES:
        now["files"].pop(path, None)
    now["driver"] = dict.fromkeys(box.shell(_DRIVER).splitlines(), "there")
    return now
