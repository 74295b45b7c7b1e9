#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: a whole host's state and what it means."""

from __future__ import annotations

DOCUMENTATION = r"""
module: npu_host_info
short_description: Diagnose a host with NPU cards
version_added: 0.1.0
description:
  - Reads PCIe links, interrupts, CPUs, clocks and irqbalance in one pass and returns findings, each with its evidence
    and its remedy. Changes nothing, runs no command, wakes no card.
extends_documentation_fragment:
  - edgenpu.tuning.reader
  - edgenpu.tuning.devices
"""

EXAMPLES = r"""
- name: Diagnose the host
  edgenpu.tuning.npu_host_info:
  register: diagnosis

- name: Stop if a card is dead
  ansible.builtin.assert:
    that: diagnosis.report.findings | selectattr('severity', 'eq', 'critical') | length == 0
"""

RETURN = r"""
report:
  description: The host's state and findings.
  returned: always
  type: dict
  contains:
    schema:
      description: Version of this shape.
      type: int
      sample: 1
    verdict:
      description: The host in one line.
      type: str
      sample: As fast as it can be
    host:
      description: Model, kernel, virtualisation.
      type: dict
      sample:
        model: FriendlyElec CM3588 NAS
    tiers:
      description: CPU tiers, slowest first.
      type: list
      elements: dict
      sample:
        - cpus: "0-3"
          basis: capacity
          value: 414
        - cpus: "4-7"
          basis: capacity
          value: 1024
    cards:
      description: NPU cards, as M(edgenpu.tuning.pcie_info) returns them, each with its interrupts.
      type: list
      elements: dict
      sample:
        - bdf: "0003:31:00.0"
          bandwidth_mb_s:
            read: 410.3
            write: 453.7
          interrupts:
            - irq: 38
              effective: "4"
    empty_slots:
      description: Ports with nothing behind them, as M(edgenpu.tuning.pcie_info) returns them.
      type: list
      elements: dict
      sample:
        - bdf: "0002:20:00.0"
          capable_gt_s: 8.0
          capable_width: 1
    needs_rescan:
      description: Ports whose link is up and behind which no device is known.
      type: list
      elements: dict
      sample: []
    policies:
      description: cpufreq policies.
      type: list
      elements: dict
      sample:
        - name: policy4
          governor: performance
    irqbalance:
      description: What irqbalance does here.
      type: dict
      sample:
        running: true
        own_drop_in: true
    kept:
      description: Roles whose wishes are kept in force.
      type: list
      elements: str
      sample:
        - irq_affinity
    findings:
      description: Findings, gravest first.
      type: list
      elements: dict
      contains:
        id:
          description: Stable name.
          type: str
          sample: interrupt_on_slow_core
        severity:
          description: V(ok), V(info), V(warning) or V(critical).
          type: str
          sample: warning
        summary:
          description: What was found.
          type: str
          sample: interrupt 38 of 0003:31:00.0 is served by CPU 0
        evidence:
          description: What was read and where.
          type: dict
          sample:
            /proc/irq/38/effective_affinity_list: "0"
        remedy:
          description: What to do.
          type: str
          sample: Run the role irq_affinity.
        role:
          description: Role that applies the remedy; null if no software can.
          type: str
          sample: irq_affinity
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "devices": DEVICES_ARGUMENT,
        },
        supports_check_mode=True,
    )
    try:
        catalogue = resolve(module.params["devices"])
    except WishError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, report=report(look(Root(module.params["root"]), catalogue)))


if __name__ == "__main__":
    main()
