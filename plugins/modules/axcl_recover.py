#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: dead and hung cards brought back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: axcl_recover
short_description: Bring a dead or hung Axera NPU card back, by the weakest step that helps
version_added: 0.1.0
description:
  - Climbs a ladder, weakest step first, and looks after each whether the card is alive again. Of a living card nothing
    is touched. Nothing else in this collection calls this; it is done when you ask for it.
  - The steps are V(stop_users) (only with O(stop_users)), V(card_reboot) (by the vendor's tool), V(reload) (the
    driver's modules unloaded and loaded in order), V(rescan) (the card removed from the PCI bus, and looked for below
    its own port), V(bus_reset) (the same, with the bus below that port reset in between).
  - Alive is what M(edgenpu.tuning.axcl_driver) calls so - registers that can be read, a bound driver, the handshake in
    the kernel log, a plausible row in axcl-smi.
  - What is to be done follows from what is seen, so a run that was killed is simply repeated. It begins with a step
    V(finish) then, which brings back what was off the bus or unloaded at that moment.
options:
  cards:
    description:
      - PCI addresses of the cards to recover, such as V(0003:31:00.0). By default all AX650N of the host.
      - Every step but V(card_reboot) unloads the driver, which resets all cards. Where some are not named here, those
        steps are not taken.
    type: list
    elements: str
    default: []
  max_step:
    description: The strongest step that may be taken.
    type: str
    choices: [card_reboot, reload, rescan, bus_reset]
    default: bus_reset
  stop_users:
    description:
      - Stop the processes that use the driver with SIGTERM. They are never killed, since that leaves a card in a state
        that only a power cycle ends, and they are not started again; RV(stopped) names them.
      - Without this, nothing is done while there are any.
    type: bool
    default: false
  stop_timeout:
    description: Seconds that they have for it.
    type: int
    default: 30
  load_timeout:
    description: Seconds that a reboot of a card, or loading the driver, may take for each card.
    type: int
    default: 300
  strict:
    description: Fail if a card is not alive in the end. Otherwise that is a warning.
    type: bool
    default: true
notes:
  - A step may take minutes, and so may a look at a dead card. Other hosts go on meanwhile.
  - The host is never rebooted; RV(reboot_required) tells when nothing else is left.
  - A step that would reset something else, too (another device below the same port), is not taken; RV(passed_over)
    says so.
  - A card gets new interrupts when its driver is loaded. What keeps them in place (M(edgenpu.tuning.irq_affinity))
    places them again, and RV(astray) tells if it has not.
attributes:
  check_mode:
    description: Can run in check mode. It tells the first step; what comes after it is unknown until it has been tried.
    support: full
  diff_mode:
    description: Shows each step, and whether the cards were alive after it.
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
  - module: edgenpu.tuning.axcl_info
  - module: edgenpu.tuning.axcl_driver
"""

EXAMPLES = r"""
- name: Bring dead cards back; whatever uses them has been stopped already
  edgenpu.tuning.axcl_recover:

- name: Stop what uses the cards, but do not go beyond a reload of the driver
  edgenpu.tuning.axcl_recover:
    stop_users: true
    max_step: reload
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: >-
    alive again after reload. 0003:31:00.0 is alive: it is bound, its firmware is up, and it has a plausible row in
    axcl-smi
alive:
  description: Whether all cards are alive now.
  returned: always
  type: bool
  sample: true
cards:
  description: Cards of this host, those that are off the bus included where they are known.
  returned: always
  type: list
  elements: dict
  contains:
    bdf:
      description: PCI address.
      type: str
      sample: '0003:31:00.0'
    before:
      description: V(alive), V(dead) or V(unknown) before the run.
      type: str
      sample: dead
    after:
      description: The same after it.
      type: str
      sample: alive
    why:
      description: What shows it.
      type: str
      sample: it is bound, its firmware is up, and it has a plausible row in axcl-smi
    port:
      description: The port above it. Null if that is not known.
      type: str
      sample: '0003:30:00.0'
tried:
  description: The steps that were taken, in order.
  returned: always
  type: list
  elements: dict
  contains:
    step:
      description: Its name.
      type: str
      sample: card_reboot
    cards:
      description: Addresses of the cards that it was taken for.
      type: list
      elements: str
      sample: ['0003:31:00.0']
    helped:
      description: Whether all cards were alive after it.
      type: bool
      sample: false
    why:
      description: What went wrong, and the signs after it; empty if all is well.
      type: str
      sample: '0003:31:00.0: the card could not be rebooted (the card on PCI bus 31)'
    kernel:
      description: What the kernel log said meanwhile of the cards, their ports and the driver, each text once.
      type: list
      elements: str
      sample: ['[  812.4] [heartbeat_recv_thread, 238]: device 31: dead!']
passed_over:
  description: Steps that were not taken, each with C(why).
  returned: always
  type: list
  elements: dict
  contains:
    step:
      description: Its name.
      type: str
      sample: bus_reset
    why:
      description: Reason.
      type: str
      sample: '0003:32:02.0, above 0003:35:00.0, has others below it that it would reset, too: 0003:35:00.1 (r8169)'
stopped:
  description: Processes that were told to end. They are yours to start again.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: Its number, which is gone now.
      type: int
      sample: 763
    name:
      description: Its name.
      type: str
      sample: axllm
    path:
      description: The device node that it had open, or the module that it was loading.
      type: str
      sample: /dev/axcl_host
    service:
      description: The systemd service that it belonged to.
      type: str
      sample: axllm.service
interrupts:
  description: Interrupts of the cards, which have other numbers once their driver was loaded again.
  returned: always
  type: list
  elements: dict
  contains:
    bdf:
      description: PCI address.
      type: str
      sample: '0003:31:00.0'
    before:
      description: Numbers before the run.
      type: list
      elements: int
      sample: [38]
    after:
      description: Numbers after it.
      type: list
      elements: int
      sample: [41]
astray:
  description:
    - What of the wishes kept on the host (interrupts, clocks) is not in force after the run. Null if nothing was done,
      or no wishes are kept there.
  returned: always
  type: list
  elements: str
  sample: []
reboot_required:
  description: Whether nothing but a reboot of the host is left. The module never reboots.
  returned: always
  type: bool
  sample: false
reboot_reason:
  description: Why.
  returned: always
  type: str
  sample: null
changes:
  description: The steps that were taken; in check mode the first that would be.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Step and cards.
      type: str
      sample: 'reload: 0003:31:00.0'
    before:
      description: Always V(not alive).
      type: str
      sample: not alive
    after:
      description: V(alive) or V(not alive). Null if it has not been tried yet.
      type: str
      sample: alive
    why:
      description: What went wrong, and the signs after it; in check mode those before it.
      type: str
      sample: ''
unknown:
  description: What cannot be known yet, and until when.
  returned: always
  type: list
  elements: str
  sample: []
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import LOCK_PATH
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.recovery import (
    Recovered,
    addresses,
    as_changes,
    recover,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.recovery import (
    ALIVE,
    GO,
    LADDER,
    RecoveryWishes,
    cards_as_data,
    no_recovery_here,
    reboot_reason,
    summary,
    wrong_recovery,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    changes_as_data,
    diff_of,
    live_sink,
    refusals_told,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host


def result_of(done: Recovered) -> Dict[str, Any]:
    """Return what the module returns, the outcome's sentence apart."""
    decision = done.decision
    changes = as_changes(done)
    reason = reboot_reason(decision)
    waits = "whether %s helps, and what comes after it: unknown until it has been tried" % decision.step
    return {
        "changed": bool(changes),
        "alive": decision.outcome == ALIVE,
        "cards": cards_as_data(done.before, done.after),
        "tried": plain(done.tried),
        "passed_over": [{"step": step, "why": why} for step, why in decision.passed_over],
        "stopped": plain(done.stopped),
        "interrupts": plain(done.moved),
        "astray": done.astray,
        "reboot_required": reason is not None,
        "reboot_reason": reason,
        "changes": changes_as_data(changes),
        "unknown": [waits] if decision.outcome == GO else [],
        "diff": diff_of(changes, []),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cards": {"type": "list", "elements": "str", "default": []},
            "max_step": {"type": "str", "choices": list(LADDER), "default": "bus_reset"},
            "stop_users": {"type": "bool", "default": False},
            "stop_timeout": {"type": "int", "default": 30},
            "load_timeout": {"type": "int", "default": 300},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    sink = live_sink()
    asked, check = module.params, module.check_mode
    wishes = RecoveryWishes(
        tuple(bdf.strip().lower() for bdf in asked["cards"]),
        asked["max_step"],
        asked["stop_users"],
        asked["stop_timeout"],
        asked["load_timeout"],
    )
    trouble = no_recovery_here(read_host(sink.root), os.uname().sysname, 0 if check else os.geteuid())
    trouble = trouble or wrong_recovery(wishes, addresses(sink.root))
    if trouble is not None:
        module.fail_json(msg=trouble)
    with refusals_told(module, sink, LOCK_PATH):
        done = recover(sink, wishes, limited(module), check)
    result = result_of(done)
    message = summary(done.decision, [one.step for one in done.tried])
    for line in done.astray or ():
        module.warn("not in force any more: %s; `edgenpu-tuning apply` tells why" % line)
    if done.decision.outcome in (ALIVE, GO):
        module.exit_json(msg=message, **result)
    if asked["strict"]:
        module.fail_json(msg=message, **result)
    module.warn(message)
    module.exit_json(msg=message, **result)


if __name__ == "__main__":
    main()
