# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and attributes that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment `edgenpu.tuning.keeper`: what a module has that changes the host and keeps it so."""

    DOCUMENTATION = r"""
options:
  state:
    description:
      - With V(present) the wishes are put in force; with V(absent) everything that this module changed is given back,
        files byte for byte, values of this boot as they were found.
    type: str
    choices: [present, absent]
    default: present
  persist:
    description:
      - Leave on the host what keeps the wishes in force after a reboot, a driver reload, a PCI rescan and when CPUs go
        offline and come back. An agent is started by these events; nothing polls.
      - Root runs the agent, so its Python must be one that only root can change. Where Ansible uses another, below a
        user's home for instance, C(/usr/bin/python3) runs the agent.
      - With V(false) only the values of this boot are set, and what an earlier run left to keep them is given back.
    type: bool
    default: true
  front_door:
    description:
      - Source of the command C(edgenpu-tuning), which is also the agent's front door. The roles hand it over.
      - Needed with O(persist=true) and O(state=present).
    type: str
  strict:
    description:
      - Fail if the kernel refuses a value. Otherwise the refusal is a warning, and named in RV(refused).
    type: bool
    default: false
  after_roles:
    description:
      - With O(state=absent), roles whose wishes are given back just before this one (V(irq_affinity), V(governor),
        V(diagnostics)).
        Check mode still sees them there; with this it can predict that the last role takes the agent along.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode and predicts exactly what can be known; the rest is named in RV(unknown).
    support: full
  diff_mode:
    description: Shows files by content and kernel values as before and after.
    support: full
  platform:
    description: Needs Linux; what is kept on the host needs systemd.
    support: full
    platforms: linux
requirements:
  - Python 3.8 or newer on the managed host, nothing else
author:
  - The edgenpu.tuning authors (@edgenpu)
"""
