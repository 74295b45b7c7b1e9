# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules have that read a host, or a tree captured from one, and change nothing."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment `edgenpu.tuning.reader`."""

    DOCUMENTATION = r"""
options:
  root:
    description:
      - Where the tree starts. Another directory than V(/) is a tree captured from a host.
      - A file is a bundle, as C(edgenpu-tuning diagnose --bundle) and M(edgenpu.tuning.npu_host_info) make them. It is
        read without being unpacked, and needs no root.
    type: path
    default: /
attributes:
  check_mode:
    description: Can run in check mode, and does the same.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Needs Linux.
    support: full
    platforms: linux
requirements:
  - Python 3.8 or newer on the managed host, nothing else
author:
  - The edgenpu.tuning authors (@edgenpu)
"""
