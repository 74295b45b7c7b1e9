#!/bin/sh
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# As the vendor's package does: only the running kernel's modules go.
set -e

for module in ax_pcie_p2p_rc axcl_host ax_pcie_mmb ax_pcie_msg ax_pcie_host_dev; do
    if grep -q "^$module " /proc/modules; then
        modprobe -r "$module"
    fi
done
rm -f "/lib/modules/$(uname -r)/extra"/ax*.ko
find /usr/src/axcl/drv/pcie/driver -type f \( -name '*.mod.c' -o -name ax_built.h -o \
    ! -name '*.c' ! -name '*.h' ! -name Kbuild ! -name Makefile \) -delete
depmod -a
