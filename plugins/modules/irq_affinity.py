#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: interrupts of NPU cards."""

from __future__ import annotations

DOCUMENTATION = r"""
module: irq_affinity
short_description: Put the interrupts of NPU cards on fast CPUs, and keep them there
version_added: 0.1.0
description:
  - Finds NPU cards by their PCI identity and their interrupts by device, never by name or number.
  - Ranks CPUs by capacity, then by ACPI CPPC, then by the kind of core that x86 names, then by maximum frequency, and
    gives each card one of the fastest tier. Where all CPUs are equally fast it takes one that is local to the card's
    NUMA node. CPU0 is left out where others are as good. CPUs that are isolated (by boot parameter or cpuset
    partition) or nohz_full are taken only if O(cpus) names them.
  - With several cards these CPUs are dealt out in the order of the cards' addresses, so the choice is the same after
    every boot. A card that dies or drops off the bus keeps its turn until the next boot, and the others stay where
    they are. More cards than CPUs go round again, one hardware thread of each core before the second.
  - Every write is read back; a refusal is named with its reason and, where nobody can move the interrupt, with what
    helps instead. It fails the task with O(strict=true) only.
  - The value found first is recorded before the first write, and given back with O(state=absent).
extends_documentation_fragment:
  - edgenpu.tuning.keeper
  - edgenpu.tuning.devices
options:
  cpus:
    description:
      - CPUs that may serve the interrupts, as a kernel CPU list such as V(4-7) or V(4,6).
      - Without it the CPUs of the fastest tier are taken.
    type: str
  spread:
    description:
      - V(single) gives each card one CPU. If it goes offline, another of the same tier takes over at once, and hands
        back later.
      - V(tier) gives each card the whole tier; the interrupt controller picks one CPU of it and fails over by itself.
    type: str
    choices: [single, tier]
    default: single
  keep_free:
    description:
      - With O(spread=single) and no O(cpus), how many cores of the fastest tier are left to the application, if there
        are more than one. A core counts with all its hardware threads, since the application and the interrupt would
        slow each other down on two threads of one core.
    type: int
    default: 1
  vectors:
    description:
      - With O(spread=single), V(together) has all vectors of a card served by its CPU, which keeps the driver's data in
        that CPU's caches.
      - V(apart) gives each vector a CPU of its own, for drivers that have a queue for each. The first vectors of all
        cards choose before the second ones.
    type: str
    choices: [together, apart]
    default: together
  born_there:
    description:
      - Load the card's kernel module through C(edgenpu-tuning load), which narrows the default affinity of new
        interrupts to the card's CPU while the module loads, so that not even the first interrupt is served elsewhere.
      - Off by default, since other interrupts that are born meanwhile start there, too. Needs O(persist=true).
    type: bool
    default: false
seealso:
  - module: edgenpu.tuning.cpufreq
"""

EXAMPLES = r"""
- name: Put every NPU card's interrupt on a fast CPU, for this boot only
  edgenpu.tuning.irq_affinity:
    persist: false

- name: Keep the interrupts on CPUs 4 and 5, whatever happens
  edgenpu.tuning.irq_affinity:
    cpus: "4-5"
    front_door: "{{ lookup('ansible.builtin.file', 'edgenpu_tuning.py') }}"

- name: Give everything back
  edgenpu.tuning.irq_affinity:
    state: absent
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: 8 interrupts of 8 NPU cards are on CPUs 4-6, 3+3+2
cards:
  description: Addresses of the NPU cards found.
  returned: when O(state=present)
  type: list
  elements: str
  sample:
    - "0003:31:00.0"
placements:
  description: One entry for each vector of each card.
  returned: when O(state=present)
  type: list
  elements: dict
  contains:
    bdf:
      description: The card's address.
      type: str
      sample: "0003:31:00.0"
    vector:
      description: Which of the card's vectors.
      type: int
      sample: 0
    irq:
      description: The interrupt's number now; null if it has none.
      type: int
      sample: 38
    original:
      description: CPUs that were allowed before the first write of this boot; null if nothing was written.
      type: str
      sample: "0-7"
    before:
      description: CPUs allowed before this run.
      type: str
      sample: "0-7"
    effective_before:
      description: CPU that was served before this run.
      type: str
      sample: "0"
    target:
      description: CPUs wanted.
      type: str
      sample: "4"
    after:
      description: 'CPUs allowed now (in check mode: predicted).'
      type: str
      sample: "4"
    effective_after:
      description: CPU that serves it now; null where only time can tell.
      type: str
      sample: "4"
    why:
      description: Why this CPU.
      type: str
      sample: fastest tier, CPUs 4-7 (capacity 1024 of 414/1024)
    state:
      description: V(right), V(change) or V(unknown) before this run.
      type: str
      sample: change
    unknown_until:
      description: What has to happen first, for V(unknown).
      type: str
      sample: a driver binds to it
    steerable:
      description:
        - Whether it can be put on another CPU.
        - V(true) if it has just been moved, V(false) if the kernel refuses for good, or will as far as is known
          without writing (by the controller's name, or since Linux 6.12 by the mode of the file), null if neither
          is known.
      type: bool
      sample: true
    reason:
      description: What was said when it was refused; null if it was not.
      type: str
      sample: 'EINVAL: the interrupt controller cannot steer this interrupt'
changes:
  description: What was changed (in check mode, would be).
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File in the kernel's or the host's tree.
      type: str
      sample: /proc/irq/38/smp_affinity_list
    before:
      description: Value found.
      type: str
      sample: "0-7"
    after:
      description: Value written.
      type: str
      sample: "4"
    why:
      description: Reason.
      type: str
      sample: 'vector 0 of 0003:31:00.0: fastest tier'
refused:
  description: What the kernel or systemd refused; RV(refused[].why) names the reason.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File or command.
      type: str
      sample: /proc/irq/38/smp_affinity_list
    before:
      description: Value found.
      type: str
      sample: "0-7"
    after:
      description: Value that was refused.
      type: str
      sample: "4"
    why:
      description: The named reason.
      type: str
      sample: 'EINVAL: the interrupt controller cannot steer this interrupt'
unknown:
  description: What cannot be known yet, and until when.
  returned: always
  type: list
  elements: str
  sample:
    - 'interrupt of 0003:31:00.0: unknown until a driver binds to it'
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import (
    INTERRUPTS,
    Served,
    npu_cards,
    tune_interrupts,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT, KEEPER_ARGUMENTS
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes, check_cpus, summary
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve, to_data
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
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import read_cpus


def placement_as_data(served: Served) -> dict[str, object]:
    """Return a placement with original and outcome as one flat dict."""
    data: dict[str, object] = plain(served.placement)
    outcome = plain(served)
    del outcome["placement"]
    data.update(outcome)
    return data


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            KEEPER_ARGUMENTS,
            devices=DEVICES_ARGUMENT,
            cpus={"type": "str"},
            spread={"type": "str", "choices": ["single", "tier"], "default": "single"},
            keep_free={"type": "int", "default": 1},
            vectors={"type": "str", "choices": ["together", "apart"], "default": "together"},
            born_there={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    sink = live_sink()
    host = writable_host(module, sink.root)
    with refusals_told(module, sink):
        ledger = Ledger(sink)
        if module.params["state"] == "absent":
            undo_and_exit(module, sink, ledger, INTERRUPTS)
        asked = {name: module.params[name] for name in ("cpus", "spread", "keep_free", "born_there", "vectors")}
        wishes = AffinityWishes.from_data(dict(asked, catalogue=to_data(resolve(module.params["devices"]))))
        check_cpus(read_cpus(sink.root), wishes)
        cards = npu_cards(sink.root, wishes.catalogue)
        if not cards:
            exit_with(module, [], [], [], [], msg=no_card(host, sink.root), cards=[], placements=[])
        kept = keep_wishes(module, sink, ledger, INTERRUPTS, wishes.to_data())
        outcome, served = tune_interrupts(sink, ledger, wishes, cards, module.check_mode)
    exit_with(
        module,
        kept.changes + outcome.changes,
        kept.files,
        kept.refused + outcome.refused,
        outcome.unknown + kept.unknown,
        msg=summary([(one.placement, one.done) for one in served], len(cards), module.check_mode),
        cards=[card.bdf for card in cards],
        placements=[placement_as_data(one) for one in served],
    )


if __name__ == "__main__":
    main()
