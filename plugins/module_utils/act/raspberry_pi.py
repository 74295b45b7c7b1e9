# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting what a card in the PCIe slot needs into a Raspberry Pi's config.txt. Nothing is rebooted."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.blocks import lost_original, no_room, put_block
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import show
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.blocks import (
    block_lines,
    holds_block,
    with_block,
    without_block,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.raspberry_pi import (
    BootWishes,
    Bound,
    given_up,
    missing_file,
    needed_lines,
    pending,
    refusal,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import read_devices
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import (
    RaspberryPi,
    Settings,
    boot_files,
    included,
    parse_config,
)

ROLE = "raspberry_pi_boot"


class Booted(NamedTuple):
    """What was changed (or would be); files with state before and after; what was refused; what the file sets then;
    what only a reboot puts in force, in words."""

    changes: List[Change]
    files: List[Tuple[str, FileState, FileState]]
    refused: List[Change]
    settings: Settings
    waiting: List[str]


def _settings(sink: Sink, pi: RaspberryPi, path: str, content: bytes) -> Settings:
    return parse_config(path, content, pi.models, included(sink.root, path))


def bound_cards(sink: Sink) -> List[Bound]:
    """Return the NPU cards that have a driver."""
    found = cards(read_devices(sink.root), BUILT_IN)
    return [Bound(card.bdf, bool(card.msi_irqs)) for card in found if card.alive and card.driver is not None]


def set_boot(sink: Sink, pi: RaspberryPi, wishes: BootWishes, check: bool) -> Booted:
    """Make config.txt grant WISHES. Raises WishError with a sentence if it cannot; the file is as it was then."""
    ledger = Ledger(sink)
    lost = lost_original(sink, ledger, ROLE) if pi.content is None else None
    if lost is not None:  # the power failed when it was written: the ledger has what was there
        files = boot_files(sink.root, lost[0], _settings(sink, pi, *lost))
        pi = pi._replace(config=lost[0], content=lost[1], files=files)
    trouble = refusal(pi)
    path, content = pi.config, pi.content
    if trouble is not None or path is None or content is None:
        raise WishError(trouble or "config.txt is not there")
    try:
        others, ours = without_block(content), block_lines(content)
    except WishError as error:
        raise WishError("%s: %s" % (path, error)) from error
    theirs = _settings(sink, pi, path, others)
    found = bound_cards(sink)
    lines = needed_lines(pi, theirs, wishes, found, ours)
    trouble = missing_file(pi, theirs, lines)
    if trouble is not None:
        raise WishError(trouble)
    after = with_block(content, [line.text for line in lines])
    in_force = needed_lines(pi, _settings(sink, pi, path, content), wishes, found, ours) == []
    if in_force and ours == [line.text for line in lines]:
        after = content  # the block need not move to the end: what stands below it contradicts nothing
    before = sink.state(path)
    settings = _settings(sink, pi, path, after)
    waiting = pending(pi, settings) + given_up(pi, _settings(sink, pi, path, content), settings)
    if before.content == after:
        return Booted([], [], [], settings, waiting)
    trouble = no_room(sink, path, len(after))
    if trouble is not None:
        raise WishError(trouble)
    state = before._replace(content=after)
    if not check:
        put_block(sink, ledger, ROLE, path, others, state)
    why = "; ".join("%s: %s" % (line.text, line.why) for line in lines) or "nothing of ours is needed in it"
    return Booted([Change(path, show(before), show(state), why)], [(path, before, state)], [], settings, waiting)


def unset_boot(sink: Sink, pi: Optional[RaspberryPi], runner: Runner, check: bool) -> Booted:
    """Take what was put into config.txt out of it again."""
    ledger = Ledger(sink)
    if pi is not None and pi.config is not None and pi.content is not None and holds_block(pi.content):
        ledger.remember_block(ROLE, pi.config, pi.content)  # if the ledger was lost, the block goes all the same
    undone = undo(sink, ledger, ROLE, runner, check)
    settings: Settings = {} if pi is None else pi.settings
    waiting: List[str] = []
    for path, before, after in undone.files:
        if pi is not None and before.content is not None and after.content is not None:
            settings = _settings(sink, pi, path, after.content)
            waiting += given_up(pi, _settings(sink, pi, path, before.content), settings)
    return Booted(undone.changes, undone.files, undone.refused, settings, waiting)
