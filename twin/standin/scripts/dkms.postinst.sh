#!/bin/sh
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# As packages for DKMS do: the source is registered, built for the running kernel, and loaded.
set -e
[ "$1" = configure ] || exit 0

ldconfig
udevadm control --reload 2>/dev/null || true
if ! dkms status -m axclhost -v "@VERSION@" | grep -q .; then
    dkms add -m axclhost -v "@VERSION@"
fi
if [ ! -e "/lib/modules/$(uname -r)/build" ]; then
    echo "axclhost: no headers for $(uname -r), so no modules were built" >&2
    exit 0
fi
dkms build -m axclhost -v "@VERSION@"
dkms install -m axclhost -v "@VERSION@" --force
for module in ax_pcie_host_dev ax_pcie_msg ax_pcie_mmb axcl_host ax_pcie_p2p_rc; do
    modprobe "$module" || echo "axclhost: module $module could not be loaded, see dmesg" >&2
done
