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
  - A device that the kernel has put into D3cold is not woken up to be read.
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

- name: Show what each card can move, and what it gets while all cards work
  ansible.builtin.debug:
    msg: "{{ item.bdf }}: {{ item.bandwidth_mb_s }}, {{ item.share_mb_s }}; narrowest link above {{ item.bottleneck }}"
  loop: "{{ pcie.devices | selectattr('npu') }}"
  loop_control:
    label: "{{ item.bdf }}"

- name: Look again for devices where a link is up and nothing is known behind it
  ansible.builtin.command:
    cmd: tee /sys/bus/pci/rescan
    stdin: "1"
  become: true
  changed_when: true
  when: pcie.needs_rescan | length > 0
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
    internal:
      description: Whether it is part of the processor, so that there is no link to speak of.
      returned: for NPU cards
      type: bool
      sample: false
    hops:
      description: Links from the card up to the root complex; none for a card inside the processor, or a dead one.
      returned: for NPU cards
      type: list
      elements: dict
      contains:
        lower:
          description: Address of the end at the card's side.
          type: str
          sample: "0003:31:00.0"
        lower_type:
          description: Kind of port of that end.
          type: str
          sample: endpoint
        lower_gt_s:
          description: Highest speed of that end.
          type: float
          sample: 5.0
        lower_width:
          description: Widest link of that end.
          type: int
          sample: 2
        upper:
          description: Address of the port above; null where it is not visible.
          type: str
          sample: "0003:30:00.0"
        upper_type:
          description: Kind of port above.
          type: str
          sample: root port
        upper_gt_s:
          description: Highest speed of the port above.
          type: float
          sample: 8.0
        upper_width:
          description: Widest link of the port above, or the lanes that the board's device tree gives it.
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
        state:
          description:
            - V(full) is as much as both ends can. V(held) and V(degraded) are less, because the port was told so, or
              because training settled for it.
            - V(asleep) is not judged. V(down), V(unread) and V(unseen) tell nothing; RV(devices[].hops[].limit) says
              why.
          type: str
          sample: full
        limited_by:
          description: Who sets speed and width, of V(card), V(slot), V(switch), V(setting), V(training).
          type: list
          elements: str
          sample:
            - card
            - slot
        limit:
          description: The same in words, or why nothing can be said.
          type: str
          sample: the card sets 5 GT/s, the slot sets x1
        read_mb_s:
          description: What DMA reads reach on it, in 10^6 bytes per second, with the payloads in force.
          type: float
          sample: 410.3
        write_mb_s:
          description: What DMA writes of 64 KiB reach on it.
          type: float
          sample: 453.7
    bottleneck:
      description: Address of the lower end of the narrowest link on its way.
      returned: for NPU cards
      type: str
      sample: "0003:31:00.0"
    shared_with:
      description: Devices in other slots whose way has a link in common with this one.
      returned: for NPU cards
      type: list
      elements: str
      sample: []
    bandwidth_mb_s:
      description: What the card can move while others rest, by C(read) and C(write); null where a link cannot be read.
      returned: for NPU cards
      type: dict
      sample:
        read: 410.3
        write: 453.7
    share_mb_s:
      description: What it gets while all NPU cards work, by C(read) and C(write).
      returned: for NPU cards
      type: dict
      sample:
        read: 410.3
        write: 453.7
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
    correctable_status:
      description: Corrected errors that left a bit behind, whoever counted them; null without that capability.
      type: list
      elements: str
      sample: []
    uncorrectable_status:
      description: Uncorrectable errors that left a bit behind.
      type: list
      elements: str
      sample: []
    port_errors:
      description: Of a root port, error messages that it received, by file.
      type: dict
      sample:
        aer_rootport_total_err_cor: 0
    l1_exit_us:
      description: Longest time to leave the link state L1, in microseconds; 65 is more than 64.
      type: int
      sample: 16
    l1_acceptable_us:
      description: Longest time that it can wait for that; null also for no limit.
      type: int
      sample: 64
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
      description: 'False if the card is dead: its configuration space reads all ones, or RV(devices[].bars_lost).'
      type: bool
      sample: true
    bars_lost:
      description: The kernel gave it addresses, and its registers hold none; C(lspci) prints [virtual].
      type: bool
      sample: false
    memory_enabled:
      description: Whether it answers to memory addresses, C(Mem+) in C(lspci).
      type: bool
      sample: true
    suspended:
      description: Whether runtime power management has put it to sleep.
      type: bool
      sample: false
    secondary_bus:
      description: Of a bridge, the bus behind it.
      type: int
      sample: 49
    subordinate_bus:
      description: Of a bridge, the last bus behind it.
      type: int
      sample: 49
    link_active:
      description: Of a port that tells, whether its link is up.
      type: bool
      sample: true
    target_gt_s:
      description: Of a port, the highest speed that it trains for.
      type: float
      sample: 8.0
    slot:
      description: Of a port that says it has a slot, its C(number), whether it is C(occupied), and C(hotplug).
      type: dict
      sample:
        number: 1
        occupied: true
        hotplug: false
    board_width:
      description: Of a root port, the lanes that the device tree gives its controller.
      type: int
      sample: 1
    tunnel:
      description: Whether it is connected by Thunderbolt or USB4, so that the figures of its link are made up.
      type: bool
      sample: false
    config_bytes:
      description: Bytes of configuration space that could be read.
      type: int
      sample: 4096
    power_state:
      description: Power state.
      type: str
      sample: D0
empty_slots:
  description:
    - Ports with nothing behind them. On a PC those that say they have a slot, with a device tree those of all its
      controllers.
  returned: always
  type: list
  elements: dict
  contains: &open_port
    bdf:
      description: Address of the port.
      type: str
      sample: "0002:20:00.0"
    port_type:
      description: Kind of port.
      type: str
      sample: root port
    capable_gt_s:
      description: Highest speed.
      type: float
      sample: 8.0
    capable_width:
      description: Widest link that a card could have there.
      type: int
      sample: 1
    slot_number:
      description: Number of the slot; null if the port does not say that it has one.
      type: int
      sample: 2
    of_node:
      description: Device-tree node of the controller.
      type: str
      sample: /pcie@fe170000
    occupied:
      description: Whether something is seated there, of ports that tell; then its link did not come up.
      type: bool
      sample: false
    has_link:
      description: Whether the link is up.
      type: bool
      sample: false
    certain:
      description: Whether the port itself says so, rather than a width that it may have kept from before.
      type: bool
      sample: false
needs_rescan:
  description: Ports whose link is up and behind which no device is known, as RV(empty_slots).
  returned: always
  type: list
  elements: dict
  contains: *open_port
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
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import open_places, pci_device
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import survey
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import climb, read_devices
from ansible_collections.edgenpu.tuning.plugins.module_utils.reading import opened_root


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
    root, devices = opened_root(module)
    try:
        catalogue = resolve(module.params["devices"] + devices)
    except WishError as error:
        module.fail_json(msg=str(error))
    everything = read_devices(root)
    by_bdf = {device.bdf: device for device in everything}
    ways = survey(everything, catalogue)
    chosen = set(by_bdf)
    if module.params["npu_only"]:
        chosen = {above.bdf for bdf in ways for above in climb(by_bdf, bdf)}
    module.exit_json(
        changed=False,
        devices=[pci_device(by_bdf[bdf], by_bdf, catalogue, ways.get(bdf)) for bdf in by_bdf if bdf in chosen],
        **open_places(everything),
        unread=["%s: %s" % pair for pair in root.unread],
    )


if __name__ == "__main__":
    main()
