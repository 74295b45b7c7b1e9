#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: metrics for Prometheus."""

from __future__ import annotations

DOCUMENTATION = r"""
module: npu_metrics
short_description: Keep metrics of NPU cards, their interrupts and clocks for Prometheus
version_added: 0.1.0
description:
  - Lets the host write its diagnosis as metrics into the directory that node_exporter's textfile collector reads,
    from time to time by a systemd timer, and whenever the agent has run.
  - Each file is put in place in one step, so that node_exporter never reads half of one. What goes wrong there is told
    in the journal, and hinders nothing else.
options:
  state:
    description:
      - With V(present) metrics are written; with V(absent) the timer is stopped, and its units and the metrics are
        removed. What stood in their place before comes back.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description:
      - Where node_exporter looks (C(--collector.textfile.directory)); made if it does not exist.
      - Needed with O(state=present).
    type: path
  interval:
    description: How often metrics are written, as systemd writes time spans; at least 10 seconds.
    type: str
    default: 5min
  front_door:
    description:
      - Source of the command C(edgenpu-tuning), which writes them. The role hands it over.
      - Needed with O(state=present).
    type: str
  strict:
    description: Fail if systemd refuses something. Otherwise that is a warning, and named in RV(refused).
    type: bool
    default: false
  after_roles:
    description:
      - With O(state=absent), roles whose wishes are given back just before this one (V(irq_affinity), V(governor),
        V(diagnostics)).
        Check mode still sees them there; with this it can predict that the last role takes the agent along.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - edgenpu.tuning.devices
attributes:
  check_mode:
    description: Can run in check mode and predicts the files that it leaves; the metrics are written later.
    support: full
  diff_mode:
    description: Shows files by content.
    support: full
  platform:
    description: Needs Linux with systemd.
    support: full
    platforms: linux
requirements:
  - Python 3.8 or newer on the managed host, nothing else
seealso:
  - module: edgenpu.tuning.npu_host_info
author:
  - The edgenpu.tuning authors (@edgenpu)
"""

EXAMPLES = r"""
- name: Write metrics every minute
  edgenpu.tuning.npu_metrics:
    directory: /var/lib/prometheus/node-exporter
    interval: 1min
    front_door: "{{ lookup('ansible.builtin.file', 'edgenpu_tuning.py') }}"

- name: Write none any more
  edgenpu.tuning.npu_metrics:
    state: absent
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: metrics are written to /var/lib/prometheus/node-exporter every 5min
metrics:
  description: The files that are written.
  returned: when O(state=present)
  type: list
  elements: str
  sample:
    - /var/lib/prometheus/node-exporter/edgenpu_tuning.prom
    - /var/lib/prometheus/node-exporter/edgenpu_tuning_agent.prom
changes:
  description: What was changed (in check mode, would be).
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File on the host.
      type: str
      sample: /etc/systemd/system/edgenpu-tuning-metrics.timer
    before:
      description: Content found; null if there was nothing.
      type: str
      sample: "[Timer]"
    after:
      description: Content written.
      type: str
      sample: "[Timer]"
    why:
      description: Reason.
      type: str
      sample: keeps the wishes of diagnostics in force
refused:
  description: What systemd refused; RV(refused[].why) says what it said.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Command.
      type: str
      sample: systemctl restart edgenpu-tuning-metrics.timer
    before:
      description: Always null.
      type: str
    after:
      description: Always null.
      type: str
    why:
      description: The reason.
      type: str
      sample: 'exit status 1: Failed to connect to bus'
unknown:
  description: What cannot be known yet, and until when.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.compiled import prefer_compiled

prefer_compiled()

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.arguments import DEVICES_ARGUMENT, KEEPER_ARGUMENTS
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import MetricsWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    exit_with,
    keep_wishes,
    live_sink,
    refusals_told,
    undo_and_exit,
    writable_host,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS


def main() -> None:
    """Run the module."""
    arguments = {name: argument for name, argument in KEEPER_ARGUMENTS.items() if name != "persist"}
    module = AnsibleModule(
        argument_spec=dict(
            arguments,
            directory={"type": "path"},
            interval={"type": "str", "default": "5min"},
            devices=DEVICES_ARGUMENT,
        ),
        required_if=[("state", "present", ["directory", "front_door"])],
        supports_check_mode=True,
    )
    sink = live_sink()
    writable_host(module, sink.root)
    with refusals_told(module, sink):
        ledger = Ledger(sink)
        if module.params["state"] == "absent":
            undo_and_exit(module, sink, ledger, METRICS)
        asked = {name: module.params[name] for name in ("directory", "interval")}
        wishes = MetricsWishes.from_data(dict(asked, catalogue=to_data(resolve(module.params["devices"]))))
        kept = keep_wishes(module, sink, ledger, METRICS, wishes.to_data())
    verb = "would be written" if module.check_mode else "are written"
    exit_with(
        module,
        kept.changes,
        kept.files,
        kept.refused,
        kept.unknown,
        msg="metrics %s to %s every %s" % (verb, wishes.directory, wishes.interval),
        metrics=list(wishes.paths),
    )


if __name__ == "__main__":
    main()
