#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: Axera's PCIe cards as their driver and tool tell of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: axcl_info
short_description: Read what Axera's AXCL driver and tool know of their cards
version_added: 0.1.0
description:
  - Asks C(axcl-smi), Axera's tool, for its cards and the processes that use them, and compares its answer with the PCI
    bus. Changes nothing, wakes no card and resets none.
  - The tool ends with exit status 0 whatever happened, prints errors in colour in the midst of its table, can run only
    once at a time and hangs when a card is dead. So it is asked through a lock and within a time limit, and what is
    wrong is in RV(problems) instead of in a failed task.
  - While the driver is not there, or still loads the cards' firmware, the tool is asked for nothing but its version.
  - Run it as root. Others see their own permissions.
extends_documentation_fragment:
  - edgenpu.tuning.reader
  - edgenpu.tuning.devices
options:
  root:
    description:
      - Where the tree starts; another directory than V(/) is a tree captured from a host, of which only modules and
        device nodes can be told, since the tool can be asked on a live host only.
    type: path
    default: /
  timeout:
    description:
      - Seconds that one call of the tool may take. With a dead card it takes 50 seconds for each until it says so.
    type: float
    default: 60
notes:
  - Each call of the tool waits until others have ended, up to about a minute.
seealso:
  - module: edgenpu.tuning.pcie_info
  - module: edgenpu.tuning.npu_host_info
"""

EXAMPLES = r"""
- name: Look at the cards
  edgenpu.tuning.axcl_info:
  register: axcl

- name: Insist that every card works
  ansible.builtin.assert:
    that: axcl.problems == []
    fail_msg: "{{ axcl.problems | map(attribute='summary') | join('; ') }}"

- name: Show how warm they are
  ansible.builtin.debug:
    msg: "{{ item.bdf }}: {{ item.temperature_c }} C, {{ item.cmm_mib.used }} of {{ item.cmm_mib.total }} MiB"
  loop: "{{ axcl.cards }}"
  loop_control:
    label: "{{ item.bdf }}"
"""

RETURN = r"""
asked:
  description: Whether the tool was asked for its cards. If not, RV(problems) says why, or the tree is captured.
  returned: always
  type: bool
  sample: true
tool:
  description: Path of the tool; null if it is not installed.
  returned: always
  type: str
  sample: /usr/bin/axcl/axcl-smi
tool_version:
  description:
    - Version of the tool; null if it was not told. What the tool shows as the driver's version is a constant of the
      tool and is not returned.
  returned: always
  type: dict
  contains:
    release:
      description: Version.
      type: str
      sample: 3.6.5
    stamp:
      description: Stamp of the build; null in old versions.
      type: str
      sample: "20250908154509"
    built:
      description: Date of the build, as printed.
      type: str
      sample: Sep  8 2025 16:14:02
cards:
  description: Cards in the tool's table; a card that does not work is not in it. What the tool does not know is null.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Number that the tool takes for its option C(-d).
      type: int
      sample: 0
    bdf:
      description: Address, as in sysfs.
      type: str
      sample: "0003:31:00.0"
    name:
      description: Name of the chip. AX650N and AX8850 are the same.
      type: str
      sample: AX650N
    firmware:
      description: Version of the firmware that runs on the card.
      type: str
      sample: V3.6.5
    temperature_c:
      description: Temperature, in degrees Celsius.
      type: int
      sample: 54
    cpu_percent:
      description: Load of the card's CPUs.
      type: int
      sample: 2
    npu_percent:
      description: Load of the card's NPU.
      type: int
      sample: 0
    memory_mib:
      description: Memory of the card's Linux, in MiB.
      type: dict
      contains:
        used:
          description: In use.
          type: int
          sample: 148
        total:
          description: All of it.
          type: int
          sample: 945
    cmm_mib:
      description: Media memory of the card, where models are, in MiB.
      type: dict
      contains:
        used:
          description: In use; 18 when idle.
          type: int
          sample: 18
        total:
          description: All of it.
          type: int
          sample: 7040
processes:
  description: Processes of this host that use a card.
  returned: always
  type: list
  elements: dict
  contains:
    card:
      description: Index of the card.
      type: int
      sample: 0
    pid:
      description: Process.
      type: int
      sample: 763
    name:
      description: Path of its program.
      type: str
      sample: /usr/bin/axllm
    name_cut:
      description: Whether the path was longer than the 66 characters that the tool shows.
      type: bool
      sample: false
    npu_memory_kib:
      description: Media memory that it uses for the NPU, in KiB.
      type: int
      sample: 160
missing:
  description: Cards of the PCI bus that the tool's table lacks, which do not work. Null if the tool was not asked.
  returned: always
  type: list
  elements: str
  sample: []
modules:
  description: Modules of the driver, in the order in which they were loaded.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
      sample: axcl_host
    state:
      description: V(Live), V(Loading) or V(Unloading).
      type: str
      sample: Live
device_nodes:
  description: Device nodes of the driver.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Path.
      type: str
      sample: /dev/axcl_host
    mode:
      description: Permissions, octal.
      type: str
      sample: "0666"
    owner:
      description: Owner.
      type: str
      sample: root
    group:
      description: Group.
      type: str
      sample: root
problems:
  description: What is wrong; empty if every card of the PCI bus has its row and all is told.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Which problem it is; never changes its meaning.
      type: str
      sample: dead_card
    summary:
      description: What is wrong.
      type: str
      sample: the card does not answer the driver's requests (the card on PCI bus 31)
    remedy:
      description: What to do.
      type: str
      sample: Look for the card in the kernel log; then reboot the card.
    evidence:
      description: The line that says so, or where it was seen.
      type: str
      sample: "active device 49 fail, ret = 0x80300186"
    device:
      description: Number of the PCI bus that the card is on, where the problem is one card's and the line tells.
      type: int
      sample: 49
not_understood:
  description: Lines of the tool that were not understood; a new version may have a new layout.
  returned: always
  type: list
  elements: str
  sample: []
"""

from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import kind_of, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    PCI_DRIVER,
    Card,
    Driver,
    Problem,
    compare,
    driver_problem,
    find_tool,
    placed,
    problem,
    read_driver,
    read_table,
    read_version,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import read_devices


def expected_cards(root: Root, devices: Any) -> List[str]:
    """Return the addresses of the cards that this driver serves. Raises WishError if DEVICES is none of ours."""
    catalogue = resolve(devices)
    kinds = [(device.bdf, kind_of(device, catalogue)) for device in read_devices(root)]
    return [bdf for bdf, kind in kinds if kind is not None and PCI_DRIVER in kind.drivers]


def card_data(card: Card) -> Dict[str, Any]:
    """Return a card as data, with its number under the name that users give it."""
    data: Dict[str, Any] = plain(card)
    data["index"] = data.pop("number")
    return data


def ask_tool(
    module: AnsibleModule, is_live: bool, tool: Optional[str], driver: Driver, bdfs: List[str]
) -> Dict[str, Any]:
    """Return what the tool says: its part of the result. BDFS are the cards that it should have."""
    answer: Dict[str, Any] = {"asked": False, "tool": tool, "tool_version": None, "missing": None}
    answer.update(cards=[], processes=[], not_understood=[])
    if not is_live:
        return dict(answer, problems=[])
    problems: List[Problem] = []
    obstacle = driver_problem(driver)
    if obstacle is not None:
        problems.append(obstacle)
    if tool is None:
        return dict(answer, problems=[*problems, problem("tool_missing", "no axcl-smi in /usr/bin/axcl")])
    runner, limit = limited(module), module.params["timeout"]
    if obstacle is not None:
        version, told = read_version(runner, tool, limit)
        return dict(answer, tool_version=version, problems=[*problems, *told])
    table = placed(read_table(runner, tool, limit), bdfs)
    missing, odd = compare(bdfs, table)
    problems += [*table.problems, *odd]
    buses = {one.device for one in table.problems}
    for bdf in missing:
        bus = int(bdf.split(":")[1], 16)
        if table.version is not None and bus not in buses and "no_card" not in {one.id for one in table.problems}:
            problems.append(problem("dead_card", "no row for %s in the table of axcl-smi" % bdf, bus))
    return dict(
        answer,
        asked=True,
        tool_version=table.version,
        cards=[card_data(card) for card in table.cards],
        processes=table.processes,
        missing=missing,
        problems=problems,
        not_understood=table.not_understood,
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "timeout": {"type": "float", "default": 60.0},
            "devices": DEVICES_ARGUMENT,
        },
        supports_check_mode=True,
    )
    if not module.params["timeout"] > 0:
        module.fail_json(msg="timeout: %g s is no time; write a number of seconds above 0" % module.params["timeout"])
    root = Root(module.params["root"])
    try:
        bdfs = expected_cards(root, module.params["devices"])
    except WishError as error:
        module.fail_json(msg=str(error))
    driver = read_driver(root)
    answer = ask_tool(module, root.is_live, find_tool(root), driver, bdfs)
    module.exit_json(changed=False, modules=plain(driver.modules), device_nodes=plain(driver.nodes), **plain(answer))


if __name__ == "__main__":
    main()
