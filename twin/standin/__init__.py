# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package that stands in for Axera's driver in tests: see README.md."""

from .builder import Build, StandinError, build

__all__ = ["Build", "StandinError", "build"]
