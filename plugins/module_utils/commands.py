# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that modules run, with a time limit."""

from __future__ import annotations

from typing import Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran, Runner

LONG_S = 60.0  # what may take longer is something to wait for


def limited(module: AnsibleModule) -> Runner:
    """Return a runner over run_command, which has no time limit of its own: timeout(1) gives it one."""

    def run(argv: Sequence[str], timeout_s: float) -> Ran:
        status, out, err = module.run_command(["timeout", "-k", "5", "%g" % timeout_s, *argv])
        return Ran(status, err + out)

    return run


def journalled(module: AnsibleModule, runner: Runner) -> Runner:
    """Return a runner that writes into the host's journal what it runs and may take long."""

    def run(argv: Sequence[str], timeout_s: float) -> Ran:
        if timeout_s > LONG_S and not module.check_mode:
            module.log("%s (at most %d s)" % (" ".join(argv), timeout_s))
        return runner(argv, timeout_s)

    return run
