# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands behind the Makefile: virtual environments, gates, and the question before anything is installed.

Standard library only and Python 3.10 or newer: this code runs before anything is installed. Ask it by
`python3 -m tools --help`.
"""
