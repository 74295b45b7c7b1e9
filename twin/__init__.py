# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digital twin: an emulated single-board computer with an NPU card on its PCIe bus, for demonstration and tests."""

from __future__ import annotations

from .host import TwinError
from .twins import Twin

__all__ = ["Twin", "TwinError"]
