#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: PCI topology."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pcie_info
short_description: Read the PCIe topology, link by link
version_added: 0.1.0
description:
  - Reads PCI devices, their configuration space and their place in the tree, from sysfs.
    Changes nothing and needs no lspci.
  - Without root the kernel shows only the first 64 bytes of each configuration space; what the rest tells is null then.
extends_documentation_fragment:
  - edgenpu.tuning.reader
  - edgenpu.tuning.devices
options:
  npu_only:
    description: Return NPU cards and the bridges above them only.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read the whole topology
  edgenpu.tuning.pcie_info:
  register: pcie

- name: Show how fast the links of NPU cards run, and what limits them
  ansible.builtin.debug:
    msg: "{{ item.bdf }}: {{ item.link_verdict.limit }}"
  loop: "{{ pcie.devices | selectattr('npu') }}"
  loop_control:
    label: "{{ item.bdf }}"
"""

RETURN = r"""
devices:
  description: PCI devices by address.
  returned: always
  type: list
  elements: dict
  contains:
    bdf:
      description: Address.
      type: str
      sample: "0003:31:00.0"
    npu:
      description: Name in the catalogue; null if it is no NPU.
      type: str
      sample: Axera AX650N
    vendor:
      description: Vendor, hexadecimal.
      type: str
      sample: 1f4b
    device:
      description: Device, hexadecimal.
      type: str
      sample: "0650"
    subsystem_vendor:
      description: Subsystem vendor, hexadecimal.
      type: str
      sample: 1f4b
    subsystem_device:
      description: Subsystem device, hexadecimal.
      type: str
      sample: "0650"
    class_code:
      description: Class, subclass and interface, hexadecimal.
      type: str
      sample: "040000"
    revision:
      description: Revision.
      type: int
      sample: 1
    driver:
      description: Driver bound to it.
      type: str
      sample: ax_pcie_dev_host
    module:
      description: Kernel module of the driver.
      type: str
      sample: ax_pcie_host_dev
    parent:
      description: Address of the bridge above.
      type: str
      sample: "0003:30:00.0"
    path:
      description: Addresses from the device up to its root port.
      type: list
      elements: str
      sample:
        - "0003:31:00.0"
        - "0003:30:00.0"
    controller:
      description: Platform device of the host bridge.
      type: str
      sample: fe180000.pcie
    of_node:
      description: Device-tree node of the controller.
      type: str
      sample: /pcie@fe180000
    port_type:
      description: Kind of port.
      type: str
      sample: endpoint
    link:
      description: Link as this end has it, in GT/s and lanes.
      type: dict
      contains:
        capable_gt_s:
          description: Highest speed.
          type: float
          sample: 5.0
        capable_width:
          description: Widest link.
          type: int
          sample: 2
        negotiated_gt_s:
          description: Speed in force.
          type: float
          sample: 5.0
        negotiated_width:
          description: 'Width in force; 0: nothing in the slot.'
          type: int
          sample: 1
    link_verdict:
      description: What both ends together could do, and what limits them; null where an end cannot be read.
      type: dict
      contains:
        possible_gt_s:
          description: Speed that both ends can do.
          type: float
          sample: 5.0
        possible_width:
          description: Width that both ends can do.
          type: int
          sample: 1
        negotiated_gt_s:
          description: Speed in force.
          type: float
          sample: 5.0
        negotiated_width:
          description: Width in force.
          type: int
          sample: 1
        degraded:
          description: Whether the link does less than it could.
          type: bool
          sample: false
        limit:
          description: Who limits it, in words.
          type: str
          sample: the card sets 5 GT/s, the slot sets x1
    mps_capable_bytes:
      description: Largest payload it can take.
      type: int
      sample: 128
    mps_bytes:
      description: Maximum payload size in force.
      type: int
      sample: 128
    mrrs_bytes:
      description: Maximum read request size in force.
      type: int
      sample: 512
    msi:
      description: MSI capability.
      type: dict
      contains:
        enabled:
          description: Whether it is on.
          type: bool
          sample: true
        capable_vectors:
          description: Vectors it can have.
          type: int
          sample: 4
        granted_vectors:
          description: Vectors it was granted.
          type: int
          sample: 1
    msix:
      description: MSI-X capability, as RV(devices[].msi).
      type: dict
    aspm:
      description: Link power states.
      type: dict
      contains:
        supported:
          description: States it supports.
          type: list
          elements: str
          sample: []
        enabled:
          description: States switched on.
          type: list
          elements: str
          sample: []
    aer:
      description: Errors reported since boot, by severity and name.
      type: dict
      contains:
        correctable:
          description: Corrected errors by name.
          type: dict
          sample:
            RxErr: 0
        nonfatal:
          description: Uncorrectable non-fatal errors by name.
          type: dict
          sample:
            DLP: 0
        fatal:
          description: Fatal errors by name.
          type: dict
          sample:
            DLP: 0
    msi_irqs:
      description: Interrupts of its vectors.
      type: list
      elements: int
      sample:
        - 38
    legacy_irq:
      description: Legacy interrupt.
      type: int
      sample: 38
    numa_node:
      description: NUMA node.
      type: int
      sample: 0
    local_cpus:
      description: CPUs local to it.
      type: str
      sample: "0-7"
    alive:
      description: 'False if its configuration space reads all ones: the card is dead.'
      type: bool
      sample: true
    config_bytes:
      description: Bytes of configuration space that could be read.
      type: int
      sample: 4096
    power_state:
      description: Power state.
      type: str
      sample: D0
unread:
  description: Files that exist but could not be read, with the reason.
  returned: always
  type: list
  elements: str
  sample:
    - '/sys/bus/pci/devices/0003:31:00.0/config: EACCES'
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import kind_of, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import pci_device
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import path_to_root, read_devices


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "npu_only": {"type": "bool", "default": False},
            "devices": DEVICES_ARGUMENT,
        },
        supports_check_mode=True,
    )
    root = Root(module.params["root"])
    try:
        catalogue = resolve(module.params["devices"])
    except WishError as error:
        module.fail_json(msg=str(error))
    everything = read_devices(root)
    chosen = {device.bdf for device in everything}
    if module.params["npu_only"]:
        npus = [device for device in everything if kind_of(device, catalogue) is not None]
        chosen = {hop.bdf for npu in npus for hop in path_to_root(everything, npu.bdf)}
    module.exit_json(
        changed=False,
        devices=[pci_device(device, everything, catalogue) for device in everything if device.bdf in chosen],
        unread=["%s: %s" % pair for pair in root.unread],
    )


if __name__ == "__main__":
    main()
