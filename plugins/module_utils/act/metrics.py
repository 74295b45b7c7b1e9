# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics for node_exporter's textfile collector: a reader finds the old file or the new one, never half of one."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

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
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, read_wishes, wishes_path

LOCK_LIMIT_S = 60.0  # below what the units allow


def host_metrics(root: Root, kinds: Sequence[CardKind], now_s: float) -> str:
    """Return the metrics of the host at ROOT as text."""
    return host_page(look(root, kinds), now_s, root.link(CURRENT))


def _asked(root: Root) -> Optional[MetricsWishes]:
    data = read_wishes(root)[0].get(METRICS)
    try:
        return None if data is None else MetricsWishes.from_data(data)
    except WishError as error:
        raise WishError("%s: %s" % (wishes_path(METRICS), error)) from error


def write_metrics(sink: Sink, now_s: float, run: Optional[Run] = None) -> List[str]:
    """Write the metrics that are wished for; return in a sentence each what stood in the way.

    RUN: that of the agent which has just ended; its file stays as it is otherwise. The tuning must not suffer from
    what goes wrong here, so nothing is raised that a host can cause.
    """
    try:
        wishes = _asked(sink.root)
        if wishes is None:
            return []
        of_host, of_agent = wishes.paths
        pages: Dict[str, str] = {of_host: host_metrics(sink.root, wishes.catalogue, now_s)}
        if run is not None:
            pages[of_agent] = agent_page(run)
        with Locked(sink, limit_s=LOCK_LIMIT_S):
            if _asked(sink.root) != wishes:
                return []  # given back or changed meanwhile: whoever did that has started a run of its own, or none
            for path in pages:
                sink.state(path)  # names what stands in the way
            for path, page in pages.items():
                sink.put(path, FileState(page.encode("utf-8", "replace")))
    except (WishError, NotAFile) as error:
        return ["metrics: %s" % error]
    except OSError as error:
        return ["metrics: %s: %s" % (error.filename or "a file", error.strerror)]
    return []
