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
  - Reads PCIe links, interrupts, CPUs, clocks, heat, irqbalance, the driver and its package in one pass and returns
    findings, each with its evidence and its remedy. Changes nothing, wakes and resets no card.
  - Where the host has a card of Axera's AXCL, the kernel log (C(dmesg)) and the card's own tool (C(axcl-smi)) are
    asked, too, each within a time limit; the tool one call at a time, and only if every such card is awake and alive.
extends_documentation_fragment:
  - edgenpu.tuning.reader
  - edgenpu.tuning.devices
options:
  bundle:
    description:
      - Return everything that was read as RV(bundle), a compressed archive. Nothing is written on the host.
      - Names of the host and of its users, serial numbers, MAC and IP addresses, passwords and keys are replaced. Of
        the kernel's command line and of the mounts only what matters here is kept.
    type: bool
    default: false
  planned:
    description:
      - What roles of the same play would change, by role, each a list as they return it in check mode. It is told as
        finding V(drift), in place of what follows from the wishes that are kept on the host.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Diagnose the host
  edgenpu.tuning.npu_host_info:
  register: diagnosis

- name: Diagnose another host from its bundle
  edgenpu.tuning.npu_host_info:
    root: reports/nas.tar.gz
  delegate_to: localhost

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
    worth_doing:
      description: What to do, that which gains most first; findings with the same remedy are one thing.
      type: list
      elements: dict
      contains:
        what:
          description: What to do.
          type: str
          sample: "Run the role governor: it holds the clock of the fast cores."
        role:
          description: Role that does it; null if none does.
          type: str
          sample: governor
        severity:
          description: The gravest of its findings.
          type: str
          sample: warning
        findings:
          description: Names of the findings that it answers.
          type: list
          elements: str
          sample:
            - clock_drops
        summaries:
          description: What these found.
          type: list
          elements: str
          sample:
            - "policy4 (CPUs 4-5) drops its clock between the short calls to the card: governor schedutil"
        expected_gain:
          description: What it can gain in speed, in words; null if it has nothing to do with speed.
          type: str
          sample: not measured
    expected_gain:
      description: What putting right interrupts and clocks can gain here, by what was measured.
      type: dict
      contains:
        measured_on:
          description: Card and board on which it was measured.
          type: str
          sample: an Axera AX650N in an RK3588
        applies:
          description: Whether this host has that card and is that board.
          type: bool
          sample: true
        text:
          description: In words, whether anything is to be expected.
          type: str
          sample: none from interrupts and clocks, they are in order, or as wished
        llm_decode_times:
          description: Between which factors decoding gets faster; null if nothing is to be expected or was measured.
          type: dict
          sample:
            low: 1.2
            high: 2.0
        single_inference:
          description:
            - By how many percent single inferences get faster, by their latency before; about one in ten gains less,
              one in ten more. Empty as above.
          type: list
          elements: dict
          sample:
            - default_latency_ms: 4.0
              low_percent: 2.7
              middle_percent: 10.9
              high_percent: 17.4
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
        expected_gain:
          description: What the remedy can gain in speed, in words; null if it has nothing to do with speed.
          type: str
          sample: not measured
bundle:
  description: The bundle, in base64. M(edgenpu.tuning.report_file) writes it into a file.
  returned: if O(bundle) is true
  type: str
  sample: H4sIAAAAAAAC/+y9
bundle_manifest:
  description: What is in it.
  returned: if O(bundle) is true
  type: dict
  sample:
    schema: 1
    taken: "2026-01-31T12:00:00Z"
    logs:
      kernel.txt: 230 lines
    scrubbed:
      MAC address: 4
"""

import base64
import time
from typing import Any, Dict, List, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.reading import opened_root


def planned(module: AnsibleModule) -> Dict[str, List[Change]]:
    """Return what roles would change; what is no change as they return it ends the module with a sentence."""
    found: Dict[str, List[Change]] = {}
    for role, changes in module.params["planned"].items():
        if changes in (None, ""):
            continue  # that role was not in the play: ansible-core before 2.19 makes an empty text of null
        try:
            found[role] = [Change(one["path"], one["before"], one["after"], one["why"]) for one in changes]
        except (KeyError, TypeError):
            module.fail_json(msg="planned: %s: each change has path, before, after and why, as roles return it" % role)
    return found


def packed(module: AnsibleModule, root: Root, kinds: Sequence[CardKind]) -> Dict[str, Any]:
    """Return the report on the tree at ROOT, a bundle of what it rests on, and what is in it."""
    # Compiled at every run where the host has no agent: only who wants a bundle pays for it.
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.bundle import bundle
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import CapturedRoot, Recorder

    if isinstance(root, CapturedRoot):
        module.fail_json(msg="bundle: %s is a bundle already; leave root at /" % module.params["root"])
    recorder = Recorder(root.path)
    run = limited(module) if root.is_live else None
    told = report(look(recorder, kinds, run)._replace(planned=planned(module)))
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = bundle(recorder, kinds, run, taken)
    return {
        "report": told,
        "bundle": base64.b64encode(made.data).decode("ascii"),
        "bundle_manifest": {name: made.manifest[name] for name in ("schema", "taken", "logs", "scrubbed")},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "bundle": {"type": "bool", "default": False},
            "planned": {"type": "dict", "default": {}},
            "devices": DEVICES_ARGUMENT,
        },
        supports_check_mode=True,
    )
    root, devices = opened_root(module)
    try:
        catalogue = resolve(module.params["devices"] + devices)
        if module.params["bundle"]:
            module.exit_json(changed=False, **packed(module, root, catalogue))
    except WishError as error:
        module.fail_json(msg=str(error))
    seen = look(root, catalogue, limited(module) if root.is_live else None)
    module.exit_json(changed=False, report=report(seen._replace(planned=planned(module))))


if __name__ == "__main__":
    main()
