# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option that tells which devices are NPU cards."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment `edgenpu.tuning.devices`."""

    DOCUMENTATION = r"""
options:
  devices:
    description:
      - NPU devices that the built-in catalogue lacks. Entries here win over built-in ones of the same identity.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What to call it.
        type: str
      vendor:
        description: PCI vendor, four hexadecimal digits in quotes.
        type: str
        required: true
      device:
        description: PCI device, four hexadecimal digits in quotes.
        type: str
        required: true
      subsystem_vendor:
        description: PCI subsystem vendor, if it matters.
        type: str
      subsystem_device:
        description: PCI subsystem device, if it matters.
        type: str
      class_code:
        description:
          - The first two, four or six hexadecimal digits of its PCI class, in quotes, where functions of one chip share
            vendor and device. A class alone identifies nothing.
        type: str
      internal:
        description: It is part of the processor and sits in no slot, so that nothing is said of its link.
        type: bool
        default: false
      drivers:
        description: Names of the drivers that serve it, as C(/sys/bus/pci/drivers) has them.
        type: list
        elements: str
        default: []
      modules:
        description: Kernel modules whose loading gives it its interrupts, for C(born_there).
        type: list
        elements: str
        default: []
"""
