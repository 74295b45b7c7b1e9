# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that modules run, with a time limit."""

from __future__ import annotations

from typing import Callable, Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule


def limited(module: AnsibleModule) -> Callable[[Sequence[str], float], Tuple[int, str]]:
    """Return a runner over run_command, which has no time limit of its own: timeout(1) gives it one."""

    def run(argv: Sequence[str], timeout_s: float) -> Tuple[int, str]:
        status, out, err = module.run_command(["timeout", "-k", "5", "%g" % timeout_s, *argv])
        return status, err + out

    return run
