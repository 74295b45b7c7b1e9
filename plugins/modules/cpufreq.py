#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: governors of cpufreq policies."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cpufreq
short_description: Set the governors of cpufreq policies, and keep them set
version_added: 0.1.0
description:
  - Between the hundreds of short NPU calls that make one token a governor such as schedutil drops the clock.
    This module holds it on the policies that serve the fastest CPUs and leaves the others alone, unless told otherwise.
  - A governor that the kernel does not offer yet, but has as a module, is loaded by writing it.
    One that it cannot have is refused before anything is changed.
  - The governor found first is recorded before the first write, and given back with O(state=absent).
extends_documentation_fragment:
  - edgenpu.tuning.keeper
  - edgenpu.tuning.devices
options:
  fast:
    description:
      - Governor for the policies of the fastest CPUs (of all CPUs, where they are equally fast).
      - A policy that serves a card's interrupt which nobody can move gets it, too, as long as O(others=keep), since the
        clock is all that can be held there.
      - V(keep) leaves them as they are.
    type: str
    default: performance
  others:
    description:
      - Governor for all other policies. V(keep) leaves them as they are.
    type: str
    default: keep
  only_with_card:
    description:
      - Change nothing on a host without an NPU card, where a held clock would cost power and gain nothing.
      - Use V(false) for hosts whose NPU is no PCI card.
    type: bool
    default: true
seealso:
  - module: edgenpu.tuning.irq_affinity
"""

EXAMPLES = r"""
- name: Hold the clock of the fast CPUs, for this boot only
  edgenpu.tuning.cpufreq:
    persist: false

- name: Hold the clock of the fast CPUs and save power on the others, also after a reboot
  edgenpu.tuning.cpufreq:
    fast: performance
    others: powersave
    front_door: "{{ lookup('ansible.builtin.file', 'edgenpu_tuning.py') }}"

- name: Give everything back
  edgenpu.tuning.cpufreq:
    state: absent
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: 2 of 3 policies changed
policies:
  description: One entry for each cpufreq policy.
  returned: when O(state=present)
  type: list
  elements: dict
  contains:
    policy:
      description: Its name.
      type: str
      sample: policy4
    cpus:
      description: CPUs that it clocks.
      type: str
      sample: "4-5"
    original:
      description: Governor before the first write of this boot; null if nothing was written.
      type: str
      sample: schedutil
    before:
      description: Governor before this run.
      type: str
      sample: schedutil
    after:
      description: 'Governor now (in check mode: predicted).'
      type: str
      sample: performance
changes:
  description: What was changed (in check mode, would be).
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File in the kernel's or the host's tree.
      type: str
      sample: /sys/devices/system/cpu/cpufreq/policy4/scaling_governor
    before:
      description: Value found.
      type: str
      sample: schedutil
    after:
      description: Value written.
      type: str
      sample: performance
    why:
      description: Reason.
      type: str
      sample: policy4 serves the fastest tier, CPUs 4-7
refused:
  description: What the kernel or systemd refused; RV(refused[].why) names the reason.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File or command.
      type: str
      sample: /sys/devices/system/cpu/cpufreq/policy4/scaling_governor
    before:
      description: Value found.
      type: str
      sample: schedutil
    after:
      description: Value that was refused.
      type: str
      sample: ondemand
    why:
      description: The named reason.
      type: str
      sample: 'EBUSY: all CPUs of this policy are offline'
unknown:
  description: What cannot be known yet, and until when.
  returned: always
  type: list
  elements: str
  sample:
    - 'governor of policy6: unknown until one of its CPUs 6-7 is online'
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import CLOCKS, npu_cards, tune_clocks
from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT, KEEPER_ARGUMENTS
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    exit_with,
    keep_wishes,
    live_sink,
    no_card,
    refusals_told,
    undo_and_exit,
    writable_host,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import read_policies


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            KEEPER_ARGUMENTS,
            fast={"type": "str", "default": "performance"},
            others={"type": "str", "default": "keep"},
            only_with_card={"type": "bool", "default": True},
            devices=DEVICES_ARGUMENT,
        ),
        supports_check_mode=True,
    )
    sink = live_sink()
    host = writable_host(module, sink.root)
    with refusals_told(module, sink):
        ledger = Ledger(sink)
        if module.params["state"] == "absent":
            undo_and_exit(module, sink, ledger, CLOCKS)
        asked = {name: module.params[name] for name in ("fast", "others", "only_with_card")}
        wishes = ClockWishes.from_data(dict(asked, catalogue=to_data(resolve(module.params["devices"]))))
        policies = read_policies(sink.root)
        if wishes.only_with_card and not npu_cards(sink.root, wishes.catalogue):
            message = no_card(host, sink.root) + "; or set only_with_card: false if its NPU is no PCI card"
            exit_with(module, [], [], [], [], msg=message, policies=[])
        if not policies:
            message = (
                "%s has no cpufreq policies (its firmware or hypervisor sets the clocks), so nothing was changed"
                % (host.model or "this host")
            )
            exit_with(module, [], [], [], [], msg=message, policies=[])
        tune_clocks(
            sink, ledger, wishes, policies, check=True
        )  # refuses what this kernel cannot have, before any change
        kept = keep_wishes(module, sink, ledger, CLOCKS, wishes.to_data())
        outcome, clocked = tune_clocks(sink, ledger, wishes, policies, module.check_mode)
    verb = "would be changed" if module.check_mode else "changed"
    exit_with(
        module,
        outcome.changes + kept.changes,
        kept.files,
        outcome.refused + kept.refused,
        outcome.unknown + kept.unknown,
        msg="%d of %d policies %s" % (len(outcome.changes), len(policies), verb),
        policies=[plain(one) for one in clocked],
    )


if __name__ == "__main__":
    main()
