# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that a diagnosis rests on, read in one pass. Reads only, and wakes no card."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import boot_id, gone_vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import Vector, vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import AX650N, CardKind, cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import read_policies
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpuidle import read_idle
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import read_cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.devfreq import read_devfreq
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host, read_uptime
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import (
    read_arrivals,
    read_interrupts,
    read_thread,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import read_irqbalance
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel, read_kernels
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice, read_devices
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import read_raspberry_pi
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.services import read_services
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.thermal import read_thermal
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes

ASLEEP = ("D3hot", "D3cold")


def _from_ledger(root: Root, wishes: Mapping[str, Any]) -> Tuple[Optional[Tuple[Vector, ...]], Tuple[str, ...]]:
    """Return (moved interrupts of cards that are gone, files and trees of ours that are gone); (None, ()) without it.

    Those are the files that keep WISHES in force. The metrics are none: they come with the agent's next run. Nor are
    those of other roles, some of which are in the ledger since they had to go.
    """
    try:
        ledger = Ledger(Sink(root))
    except WishError:
        return None, ()
    made = [
        one
        for one in ledger.entries()
        if one.role in (*wishes, SHARED) and one.kind in ("file", "tree") and not one.id.endswith(".prom")
    ]
    ours = [one.id for one in made if one.state is None or (one.state.content, one.state.target) == (None, None)]
    return tuple(gone_vectors(root, ledger, boot_id(root))), tuple(path for path in ours if not root.exists(path))


def _axcl(root: Root, cards_: Sequence[PciDevice], kernels: Sequence[Kernel], run: Optional[Runner], up: Any) -> Any:
    """Return what belongs to AXCL cards. Their tool is asked only where all of them are awake and alive.

    A card that sleeps would be woken, and for a dead one the tool waits the better part of a minute.
    """
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.kernel_log import Situation, dead_cards
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import axcl_host
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import PCI_DRIVER

    bdfs = [card.bdf for card in cards_]
    seen = axcl_host.read_axcl_host(root, kernels, bdfs)
    events = axcl_host.read_events(root, run)
    well = all(card.alive and card.driver == PCI_DRIVER and card.power_state not in ASLEEP for card in cards_)
    table = None
    if well and not dead_cards(events, Situation(bdfs, frozenset(), up)):
        table = axcl_host.read_answer(root, run, seen.driver, len(bdfs))
    return seen._replace(events=events, table=table, allowed=axcl_host.read_allowed(root, table))


def look(root: Root, catalogue: Sequence[CardKind], run: Optional[Runner] = None) -> Snapshot:
    """Return the state of the host (or captured tree) at ROOT.

    RUN is given for the live system where commands may be run: the kernel log and the cards' own tool are asked then.
    """
    devices = read_devices(root)
    mine = [card for card in cards(devices, catalogue) if (card.vendor, card.device) == AX650N]
    modules: List[str] = [module for kind in catalogue for module in kind.modules]
    if mine:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import MODULES

        modules += MODULES
    kernels, uptime_s = read_kernels(root, modules), read_uptime(root)
    axcl = _axcl(root, mine, kernels, run, uptime_s) if mine else None
    irqs = [irq for card in cards(devices, catalogue) for irq in vectors(card)]
    wishes, _problems = read_wishes(root)
    host = read_host(root)
    gone, lost = _from_ledger(root, wishes) if wishes else ((), ())  # before what could not be read is listed
    raspberry_pi = read_raspberry_pi(root, host)
    threads = ((irq, read_thread(root, irq)) for irq in irqs)
    interrupts = read_interrupts(root, irqs) if irqs else {}
    cpus = read_cpus(root)
    serving = sorted({cpu for one in interrupts.values() for cpu in one.effective or ()})
    return Snapshot(
        host,
        devices,
        tuple(catalogue),
        interrupts,
        cpus,
        read_policies(root),
        read_irqbalance(root),
        wishes,
        # EBUSY is an answer: all CPUs of that cpufreq policy are offline.
        tuple(sorted({(path, code) for path, code in root.unread if code != "EBUSY"})),
        tuple((irq, thread) for irq, thread in threads if thread is not None),
        uptime_s=uptime_s,
        kernels=kernels,
        axcl=axcl,
        gone=gone,
        lost=lost,
        thermal=read_thermal(root, [cpu.number for cpu in cpus if cpu.online]),
        devfreq=read_devfreq(root),
        idle=read_idle(root, serving),
        services=read_services(root, bool(wishes)),
        arrived=read_arrivals(root, interrupts),  # last: as much as can be has come by then
        raspberry_pi=raspberry_pi,
    )
