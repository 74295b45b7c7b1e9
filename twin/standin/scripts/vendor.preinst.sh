#!/bin/sh
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# As the vendor's package does: a busy module ends it, and apt's sandbox is switched off for good.
set -e

for module in ax_pcie_p2p_rc axcl_host ax_pcie_mmb ax_pcie_msg ax_pcie_host_dev; do
    if grep -q "^$module " /proc/modules; then
        modprobe -r "$module"
    fi
done
rm -f "/lib/modules/$(uname -r)/extra"/ax*.ko
rm -rf /usr/src/axcl
mkdir -p /etc/apt/apt.conf.d
echo 'APT::Sandbox::User "root";' >/etc/apt/apt.conf.d/10sandbox
