# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading a card's module so that its interrupts start on the card's CPU, instead of being moved there later."""

from __future__ import annotations

import contextlib
from typing import Callable, List, NamedTuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import (
    INTERRUPTS,
    boot_id,
    gone_vectors,
    npu_cards,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes, plan
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_mask, parse_list, parse_mask
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import read_cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes

DEFAULT = "/proc/irq/default_smp_affinity"
LOCK_PATH = "/run/edgenpu-tuning-load.lock"  # not the writers' lock: a module's load may block for minutes
LOCK_LIMIT_S = 600.0


class Loaded(NamedTuple):
    """The exit status of the load, and what kept the interrupts from being born on their CPU."""

    status: int
    problems: List[str]


def _mask(sink: Sink, module: str) -> str:
    """Return the mask for the first card that MODULE serves. Raises WishError where there is none."""
    data = read_wishes(sink.root)[0].get(INTERRUPTS)
    if data is None:
        raise WishError("no wishes for interrupts are kept on this host")
    wishes = AffinityWishes.from_data(data)
    kinds = tuple(kind for kind in wishes.catalogue if module in kind.modules)
    cards = npu_cards(sink.root, wishes.catalogue)
    served = {card.bdf for card in npu_cards(sink.root, kinds)}
    gone = gone_vectors(sink.root, Ledger(sink), boot_id(sink.root))
    for placement in plan(cards, {}, read_cpus(sink.root), wishes, gone=gone).placements:
        if placement.bdf in served and placement.target:
            return format_mask(parse_list(placement.target) or ())
    raise WishError("no card on this host is served by the module %s" % module)


def born_there(sink: Sink, module: str, load: Callable[[], int]) -> Loaded:
    """Run LOAD while new interrupts start on the card's CPU (genirq: irq_setup_affinity takes the default mask).

    The module is loaded whatever else fails, and the default mask is put back whatever the load does.
    """
    problems: List[str] = []
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Locked(sink, LOCK_PATH, LOCK_LIMIT_S))
        except OSError as error:
            return Loaded(load(), ["%s: %s" % (LOCK_PATH, error.strerror)])
        except WishError as error:  # another module's load hangs
            return Loaded(load(), [str(error)])
        before = sink.root.text(DEFAULT)
        mask = ""
        try:
            mask = _mask(sink, module)
        except WishError as error:
            problems.append(str(error))
        if before is None or not mask:
            return Loaded(load(), problems)
        try:
            refusal = sink.set_value(DEFAULT, mask, parse_mask)
            if refusal is not None:
                problems.append("%s: %s" % (DEFAULT, refusal))
            return Loaded(load(), problems)
        finally:
            sink.set_value(DEFAULT, before, parse_mask)
