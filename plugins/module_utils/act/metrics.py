# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics for node_exporter's textfile collector: a reader finds the old file or the new one, never half of one."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, NotAFile, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import (
    MetricsWishes,
    Run,
    agent_page,
    host_page,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.agent import CURRENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, read_wishes, wishes_path

LOCK_LIMIT_S = 60.0  # below what the units allow
MOST_LOOKS = 3  # in a storm of events the timer, or the next one, sees to the rest


def host_metrics(root: Root, kinds: Sequence[CardKind], now_s: float, run: Optional[Runner]) -> str:
    """Return the metrics of the host at ROOT as text. RUN: where the kernel log and the cards' tool may be asked."""
    return host_page(look(root, kinds, run), now_s, root.link(CURRENT))


def _asked(root: Root) -> Optional[MetricsWishes]:
    data = read_wishes(root)[0].get(METRICS)
    try:
        return None if data is None else MetricsWishes.from_data(data)
    except WishError as error:
        raise WishError("%s: %s" % (wishes_path(METRICS), error)) from error


def _write(sink: Sink, wishes: MetricsWishes, path: str, page: str) -> None:
    with Locked(sink, limit_s=LOCK_LIMIT_S):
        if _asked(sink.root) == wishes:  # or given back or changed meanwhile: who did that has seen to the rest
            sink.state(path)  # names what stands in the way
            sink.put(path, FileState(page.encode("utf-8", "replace")))


def _told(sink: Sink, write: Callable[[MetricsWishes], None]) -> List[str]:
    """Let WRITE write what is wished for; return in a sentence what stood in the way.

    The tuning must not suffer from what goes wrong here, so nothing is raised that a host can cause.
    """
    try:
        wishes = _asked(sink.root)
        if wishes is not None:
            write(wishes)
    except (WishError, NotAFile) as error:
        return ["metrics: %s" % error]
    except OSError as error:
        return ["metrics: %s: %s" % (error.filename or "a file", error.strerror)]
    return []


def write_run(sink: Sink, run: Run) -> List[str]:
    """Write the metrics of the agent's RUN that has just ended; return what stood in the way."""
    return _told(sink, lambda wishes: _write(sink, wishes, wishes.paths[1], agent_page(run)))


def write_metrics(sink: Sink, now_s: Callable[[], float], run: Optional[Runner] = None) -> List[str]:
    """Write the metrics of the host; return what stood in the way.

    NOW_S: the clock, seconds since 1970. If the agent has run while the host was looked at, the host is looked at once
    more: systemd makes one of the two requests for this.
    """

    def write(wishes: MetricsWishes) -> None:
        of_host, of_agent = wishes.paths
        for _time in range(MOST_LOOKS):
            before = sink.root.text(of_agent)
            _write(sink, wishes, of_host, host_metrics(sink.root, wishes.catalogue, now_s(), run))
            if sink.root.text(of_agent) == before:
                break

    return _told(sink, write)
