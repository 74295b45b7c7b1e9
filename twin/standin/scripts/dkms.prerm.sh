#!/bin/sh
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
set -e

for module in ax_pcie_p2p_rc axcl_host ax_pcie_mmb ax_pcie_msg ax_pcie_host_dev; do
    if grep -q "^$module " /proc/modules; then
        modprobe -r "$module"
    fi
done
if dkms status -m axclhost -v "@VERSION@" | grep -q .; then
    dkms remove -m axclhost -v "@VERSION@" --all
fi
