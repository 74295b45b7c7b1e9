#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: what a card in a Raspberry Pi's PCIe slot needs in config.txt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: raspberry_pi_boot
short_description: Switch on the PCIe slot of a Raspberry Pi 5 for an NPU card, in config.txt
version_added: 0.1.0
description:
  - Puts into C(config.txt) what a card in the PCIe slot of a Raspberry Pi 5, 500 or Compute Module 5 needs, and no
    more. What the file says already, in whatever spelling, is not said again.
  - All lines of this module are in one marked block below C([all]), at the end of the file. Everything else in it stays
    byte for byte, line ends and other encodings included.
  - Filters such as C([cm5]) and included files are understood. What hangs on something that cannot be seen from here
    (the level of a pin, an included file) counts as not said.
  - On another board nothing is done. A Raspberry Pi without such a slot is refused in one sentence.
options:
  state:
    description:
      - With V(present) the slot is on; with V(absent) the block is taken out again, and what others have written into
        the file since stays.
    type: str
    choices: [present, absent]
    default: present
  generation:
    description:
      - PCIe generation that the slot may run at. The board is certified for V(2), its default; V(3) works with many
        cards, and gives nothing to one that has no more than 5 GT/s, as the AX650N.
      - Without it the slot's speed is left as it is.
    type: int
    choices: [2, 3]
  compat_overlay:
    description:
      - Whether the slot is served by its own interrupt controller (C(dtoverlay=pciex1-compat-pi5,no-mip)) instead of
        the MIP. The MIP can put the card's interrupt on any CPU and the other one cannot, but the MIP has few vectors.
      - V(auto) does so if the card has its driver and no MSI, or if O(driver) is an AXCL before 3.10.2, which wants
        several. What V(auto) has put in stays until V(never) takes it out.
    type: str
    choices: [auto, always, never]
    default: auto
  driver:
    description:
      - The driver that is (about to be) installed - AXCL's version, or a name of a file or package that has it in it. A
        name without one tells nothing.
      - Without it the one counts that M(edgenpu.tuning.axcl_driver) has installed.
    type: str
  dma_32bit:
    description:
      - Let the card see memory below 4 GiB (C(dtoverlay=pcie-32bit-dma-pi5)), for cards that reach no further. The
        AX650N does.
    type: bool
    default: false
  kernel_4k_pages:
    description:
      - Boot the kernel with pages of 4 KiB (C(kernel=kernel8.img)) instead of 16 KiB. The AX650N works with both; the
        Coral Edge TPU needs 4 KiB. It is another kernel, which needs a driver of its own.
    type: bool
    default: false
notes:
  - The host is never rebooted; RV(reboot_required) tells whether the running boot has what the file says.
  - The file is replaced in one step, after the original has been recorded on the root file system. FAT has no journal,
    so a power cut in that moment may leave the boot partition with the old file, the new one, or none. The board starts
    without C(config.txt), too, and the next run brings it back.
attributes:
  check_mode:
    description: Can run in check mode and predicts exactly.
    support: full
  diff_mode:
    description: Shows the file.
    support: full
  platform:
    description: Needs Linux.
    support: full
    platforms: linux
requirements:
  - Python 3.8 or newer on the managed host, nothing else
author:
  - The edgenpu.tuning authors (@edgenpu)
seealso:
  - module: edgenpu.tuning.axcl_driver
  - module: edgenpu.tuning.npu_host_info
"""

EXAMPLES = r"""
- name: Switch the PCIe slot on
  edgenpu.tuning.raspberry_pi_boot:
  register: boot

- name: Reboot only where that is needed
  ansible.builtin.reboot:
    msg: "{{ boot.reboot_reason }}"
  when: boot.reboot_required

- name: Prepare the slot for a driver that wants several MSIs, at generation 3
  edgenpu.tuning.raspberry_pi_boot:
    driver: axcl_host_aarch64_V3.6.4_20250822020158_NO4873.deb
    generation: 3

- name: What a Coral Edge TPU needs
  edgenpu.tuning.raspberry_pi_boot:
    dma_32bit: true
    kernel_4k_pages: true

- name: Take it out again
  edgenpu.tuning.raspberry_pi_boot:
    state: absent
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: /boot/firmware/config.txt was changed
config:
  description: The file. V(null) on another board.
  returned: always
  type: str
  sample: /boot/firmware/config.txt
settings:
  description: What the file says after the run, about what concerns the slot.
  returned: always
  type: dict
  contains:
    pcie:
      description: The slot is switched on.
      type: dict
      sample: {value: true, certain: true, file: /boot/firmware/config.txt, line: dtparam=pciex1}
    generation:
      description: PCIe generation.
      type: dict
    no_mip:
      description: The slot's own interrupt controller serves it.
      type: dict
    dma_32bit:
      description: The card sees memory below 4 GiB.
      type: dict
    kernel:
      description: Kernel that is booted.
      type: dict
running:
  description: What the running boot was given. V(null) stands for unknown.
  returned: on a Raspberry Pi
  type: dict
  sample: {pcie: true, generation: 2, no_mip: false, dma_32bit: false}
bootloader_date:
  description: Date of the boot loader in the EEPROM.
  returned: on a Raspberry Pi
  type: str
  sample: '2025-05-08'
page_size:
  description: Size of the running kernel's pages, in bytes.
  returned: on a Raspberry Pi
  type: int
  sample: 16384
supply_ma:
  description: Current that the power supply offers, in mA. A weak one is a usual cause of a card that is not seen.
  returned: on a Raspberry Pi
  type: int
  sample: 5000
reboot_required:
  description: Whether only a reboot puts in force what the file says. The module never reboots.
  returned: always
  type: bool
  sample: true
reboot_reason:
  description: Why.
  returned: always
  type: str
  sample: dtparam=pciex1 (/boot/firmware/config.txt), but until a reboot its PCIe slot is off
changes:
  description: What was changed (in check mode, would be).
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
      sample: /boot/firmware/config.txt
    before:
      description: Its content as found.
      type: str
    after:
      description: Its content now.
      type: str
    why:
      description: Reason.
      type: str
      sample: 'dtparam=pciex1: the PCIe slot is switched on'
refused:
  description: What could not be given back, each with C(why).
  returned: always
  type: list
  elements: dict
  sample: []
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.raspberry_pi import Booted, set_boot, unset_boot
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.raspberry_pi import BootWishes, old_bootloader
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    changes_as_data,
    diff_of,
    live_sink,
    refusals_told,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import RECORD, parse_record
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import sdk_version
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import read_raspberry_pi


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "generation": {"type": "int", "choices": [2, 3]},
            "compat_overlay": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "driver": {"type": "str"},
            "dma_32bit": {"type": "bool", "default": False},
            "kernel_4k_pages": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    asked, check, sink = module.params, module.check_mode, live_sink()
    host = read_host(sink.root)
    pi = read_raspberry_pi(sink.root, host)
    done = Booted([], [], [], {}, [])
    message = "%s is no Raspberry Pi, so there is nothing to set" % (host.model or "this host")
    if pi is not None and not check and os.geteuid() != 0:
        module.fail_json(msg="user id %d may not write config.txt; run as root (become: true)" % os.geteuid())
    if pi is not None:
        named = asked["driver"]
        sdk = sdk_version(named, named) if named else parse_record(sink.root.text(RECORD)).sdk
        wishes = BootWishes(
            asked["generation"], asked["compat_overlay"], asked["dma_32bit"], asked["kernel_4k_pages"], sdk
        )
        with refusals_told(module, sink):
            if asked["state"] == "present":
                done = set_boot(sink, pi, wishes, check)
            else:
                done = unset_boot(sink, pi, limited(module), check)
        word = "would be changed" if check else "was changed"
        same = "config.txt needs no change" if asked["state"] == "present" else "nothing of ours was in config.txt"
        message = "%s %s" % (done.changes[0].path, word) if done.changes else same
        old = old_bootloader(pi)
        if old is not None:
            module.warn(old + "; run `rpi-eeprom-update -a` and reboot")
    result: Dict[str, Any] = {
        "changed": bool(done.changes),
        "config": None if pi is None else pi.config,
        "settings": {key: plain(setting) for key, setting in done.settings.items()},
        "reboot_required": bool(done.waiting),
        "reboot_reason": "; ".join(done.waiting) or None,
        "changes": changes_as_data(done.changes),
        "refused": changes_as_data(done.refused),
        "diff": diff_of(done.changes, done.files),
    }
    if pi is not None:
        result.update(
            running=plain(pi.running),
            bootloader_date=pi.bootloader_date,
            page_size=pi.page_size,
            supply_ma=pi.supply_ma,
        )
    if done.refused:
        message = "not given back: " + "; ".join("%s: %s" % (one.path, one.why) for one in done.refused)
        module.fail_json(msg=message, **result)
    module.exit_json(msg=message, **result)


if __name__ == "__main__":
    main()
