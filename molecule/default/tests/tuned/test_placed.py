# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tuning has set, and what it has left on the machine."""

from __future__ import annotations

from box import COMMAND, DROP_IN, TUNED, UNIT, Box, Thread

MSIS = 1000


def test_interrupt_and_governors(box: Box) -> None:
    """The card's interrupt is on the chosen core; the fast clusters hold their clock, the little one is left alone."""
    assert box.state() == TUNED


def test_interrupts_from_outside_are_served_by_the_chosen_core(box: Box) -> None:
    """Counted by the kernel, for the interrupt and for its thread."""
    handled = box.handled()
    served = box.served_by(MSIS)
    assert sum(served.values()) >= 0.99 * MSIS
    assert served[4] >= 0.99 * sum(served.values())
    # One run of the thread may do the work of several interrupts.
    assert MSIS / 2 <= box.handled() - handled <= MSIS
    assert box.thread() == Thread(allowed="4", last="4")


def test_irqbalance_runs_with_the_owners_arguments_and_our_policy(box: Box) -> None:
    """It is told to leave the card alone, not switched off."""
    process = box.shell("cat /proc/$(systemctl show irqbalance.service --property=MainPID --value)/cmdline").split("\0")
    ours = "--policyscript=/usr/lib/edgenpu-tuning/irqbalance.d"
    # Debian 12's unit says so, Debian 13's no longer does.
    words = [word for word in process[:-1] if word != "--foreground"]
    assert words == ["/usr/sbin/irqbalance", "--interval=1", ours]


def test_agent_starts_at_boot(box: Box) -> None:
    """The unit is enabled, and before what it must not wait for."""
    assert box.root.service(UNIT).is_enabled


def test_files_belong_to_root_and_only_root_may_write_them(box: Box) -> None:
    """All that was left on the machine; the ledger is nobody else's business."""
    listing = box.shell(
        f"find /etc/edgenpu-tuning /usr/lib/edgenpu-tuning /var/lib/edgenpu-tuning {COMMAND} {DROP_IN} "
        f"/etc/systemd/system/edgenpu-tuning* /etc/udev/rules.d/90-edgenpu-tuning.rules -printf '%p %y %m %u:%g\\n'"
    )
    modes = {path: (kind, mode, owner) for path, kind, mode, owner in map(str.split, listing.splitlines())}
    assert {owner for _kind, _mode, owner in modes.values()} == {"root:root"}
    executables = {path for path, (kind, mode, _owner) in modes.items() if kind == "f" and mode == "755"}
    plain = {path for path, (kind, mode, _owner) in modes.items() if kind == "f" and mode == "644"}
    files = {path for path, (kind, _mode, _owner) in modes.items() if kind == "f"}
    assert files - executables - plain == {"/var/lib/edgenpu-tuning/ledger.json"}
    assert modes["/var/lib/edgenpu-tuning/ledger.json"][1] == "600"
    assert {path.rpartition("/")[2] for path in executables} == {"edgenpu-tuning", "npu-cards"}
    assert {mode for kind, mode, _owner in modes.values() if kind == "d"} <= {"755", "700"}
