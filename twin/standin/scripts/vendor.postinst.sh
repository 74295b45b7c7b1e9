#!/bin/sh
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# As the vendor's package does: modules for the running kernel only, loaded at once, in red what went wrong.
[ "$1" = configure ] || exit 0

log=/var/log/axclhost-install.log
source=/usr/src/axcl/drv/pcie/driver
extra=/lib/modules/$(uname -r)/extra
modules="ax_pcie_host_dev ax_pcie_msg ax_pcie_mmb axcl_host ax_pcie_p2p_rc"
backwards="ax_pcie_p2p_rc axcl_host ax_pcie_mmb ax_pcie_msg ax_pcie_host_dev"

red() {
    printf '\033[31m%s\033[0m\n' "$*"
}

case $(dpkg --print-architecture) in
arm64) host=arm64 ;;
amd64) host=x86 ;;
*) host=$(dpkg --print-architecture) ;;
esac

if ! make -C "$source" "host=$host" all >"$log" 2>&1; then
    red "axclhost: build failed, see $log"
    red "to remove it: dpkg --force-remove-reinstreq --purge axclhost"
    exit 1
fi
mkdir -p "$extra"
cp "$source"/ax*.ko "$extra/"
depmod -a
ldconfig

for module in $modules; do
    if ! modprobe "$module"; then
        red "axclhost: module $module could not be loaded, see dmesg"
        for loaded in $backwards; do
            if grep -q "^$loaded " /proc/modules; then
                modprobe -r "$loaded"
            fi
        done
        rm -f "$extra"/ax*.ko
        depmod -a
        exit 1
    fi
done

case ":$PATH:" in
*:/usr/bin/axcl:*) ;;
*) red "run 'source /etc/profile' to have the tools on the PATH" ;;
esac
exit 0
