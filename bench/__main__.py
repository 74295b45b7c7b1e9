# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python -m bench`: boots a twin, measures, prints a table, keeps it in the README, exits with 1 if a limit is missed.

Times depend on the machine and on what else runs on it, so a limit is a ratio to something measured in the same run
wherever that makes sense. The two limits in seconds are promises to users, kept by the guest's own clock.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twin import Twin, TwinError

from .table import BenchError, Row, as_data, born_there, middle, render, with_run

CHECKOUT = Path(__file__).resolve().parents[1]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
NAME = "bench"
ROUNDS = 5
SHELL_DIAGNOSIS = 10.1 / 0.2  # what a shell diagnosis costs, as a multiple of `python3 -c pass`
FIRMWARE_MS = 12000  # how long the stand-in driver's module load blocks in the boot measurement

INVENTORY = """\
all:
  hosts:
    bench:
  vars:
    ansible_user: root
    ansible_ssh_common_args: -F {ssh_config}
    ansible_python_interpreter: /usr/bin/python3
"""
# As many remote tasks as site.yml has, each doing nothing: what Ansible itself costs.
NO_OP = """\
- name: Do nothing as often as site.yml does something
  hosts: bench
  gather_facts: false
  tasks:
    - name: Do nothing, first
      ansible.builtin.ping:
    - name: Do nothing, second
      ansible.builtin.ping:
    - name: Do nothing, third
      ansible.builtin.ping:
"""


def play(inventory: Path, playbook: Path, *extra: str) -> float:
    """Run a playbook and return its wall time in seconds; anything but success ends the benchmark."""
    begin = time.monotonic()
    argv = [str(PLAYBOOK), "-i", str(inventory), str(playbook), *extra]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{playbook.name} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return time.monotonic() - begin


def guest(twin: Twin, command: str) -> str:
    """Run a command on the twin and return what it prints; anything but success ends the benchmark."""
    done = twin.ssh(command)
    if done.returncode != 0:
        sys.exit(f"on the twin, {command!r} ended with {done.returncode}: {done.stderr.strip()}")
    return str(done.stdout)


def warm_site(inventory: Path, scratch: Path) -> Row:
    """Compare a site.yml that has nothing to change with as many tasks that do nothing, in turns."""
    no_op = scratch / "no-op.yml"
    no_op.write_text(NO_OP, encoding="utf-8")
    reports = f"-ediagnostics_report_dir={scratch / 'reports'}"
    play(inventory, CHECKOUT / "playbooks" / "site.yml", reports)
    play(inventory, no_op)
    ours, theirs = [], []
    for _round in range(ROUNDS):
        ours.append(play(inventory, CHECKOUT / "playbooks" / "site.yml", reports))
        theirs.append(play(inventory, no_op))
    ratio = statistics.median(ours) / statistics.median(theirs)
    return Row("warm site.yml / no-op play of 3 tasks", ratio, "x", 1.5, f"s: {middle(ours)} / {middle(theirs)}")


def reload_times(twin: Twin) -> list[float]:
    """Return the seconds from the driver's bind (kernel log) to the pinned interrupt (journal), for some reloads.

    On a resumed clone the kernel log's clock runs ahead of the monotonic one of the journal: both are read at one
    moment in each round, and the log's times are set back by the difference.
    """
    script = f"""
    set -e
    for round in $(seq {ROUNDS}); do
        dmesg --clear
        echo clock-probe > /dev/kmsg
        read -r now _ < /proc/uptime
        dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\] clock-probe.*/log \\1/p'
        echo "now $now"
        modprobe -r ax_pcie_host_dev
        modprobe ax_pcie_host_dev
        udevadm settle
        irq=$(ls /sys/bus/pci/devices/0003:31:00.0/msi_irqs)
        for try in $(seq 100); do
            [ "$(cat /proc/irq/$irq/smp_affinity_list)" = 4 ] && break
            sleep 0.1
        done
        # The journal's line comes after the write that it tells of.
        while [ "$(systemctl is-active edgenpu-tuning)" = activating ]; do sleep 0.1; done
        journalctl --sync
        dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\].*ax_pcie_dev_host 0003:31:00.0: .*MSI.*/bind \\1/p' | tail -n 1
        journalctl -u edgenpu-tuning -o short-monotonic --no-pager |
            sed -n 's/^\\[ *\\([0-9.]*\\)\\].*smp_affinity_list.*/pin \\1/p' | tail -n 1
        sleep 1
    done
    """
    words = re.findall(r"^(log|now|bind|pin) ([0-9.]+)$", guest(twin, script), re.M)
    logs, moments, seen, pins = (
        [float(value) for word, value in words if word == which] for which in ("log", "now", "bind", "pin")
    )
    binds = [bind - (log - now) for bind, log, now in zip(seen, logs, moments, strict=True)]
    if len(binds) != ROUNDS or len(pins) != ROUNDS or any(pin < bind for bind, pin in zip(binds, pins, strict=True)):
        sys.exit(f"the reloads were not all followed by a pinned interrupt: {words}")
    return [pin - bind for bind, pin in zip(binds, pins, strict=True)]


def cpu_seconds(twin: Twin, command: str) -> float:
    """Return the CPU seconds (user and system, all children) of a command on the twin, the median of some runs."""
    program = (
        "import resource, subprocess, sys\n"
        "for _ in range(%d):\n"
        "    before = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "    after = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)\n"
    ) % ROUNDS
    output = guest(twin, f"python3 -c '{program}' {command}")
    return statistics.median(float(line) for line in output.split())


def boot(twin: Twin) -> Row:
    """Return how long before the end of sysinit.target the interrupt is pinned, while the module load blocks it."""
    conf = "/etc/modprobe.d/bench.conf"
    guest(twin, f"echo options ax_pcie_host_dev load_delay_ms={FIRMWARE_MS} > {conf}; sync")
    twin.reboot_and_wait()
    pinned = re.findall(
        r"^\[ *([0-9.]+)\].*smp_affinity_list",
        guest(twin, "journalctl -b -u edgenpu-tuning -o short-monotonic --no-pager"),
        re.M,
    )
    shown = guest(twin, "systemctl show sysinit.target -p ActiveEnterTimestampMonotonic --value")
    sysinit = int(shown) / 1e6
    guest(twin, f"rm {conf}")
    if not pinned:
        sys.exit("after the boot the interrupt was not pinned")
    first = float(pinned[0])
    detail = f"{first:.1f} / {sysinit:.1f} s after the kernel's start; module load blocked {FIRMWARE_MS / 1000:g} s"
    return Row("boot: pinned / end of sysinit.target", first / sysinit, "x", 1.0, detail)


def measure(twin: Twin, scratch: Path) -> list[Row]:
    """Measure everything on TWIN and return the table."""
    inventory = scratch / "inventory.yml"
    inventory.write_text(INVENTORY.format(ssh_config=CHECKOUT / ".cache" / "twin" / "ssh_config"), encoding="utf-8")
    rows: list[Row] = []
    steps: list[Callable[[], Row]] = [
        lambda: warm_site(inventory, scratch),
        lambda: reload_row(twin),
        lambda: agent_row(twin),
        lambda: diagnose_row(twin),
        lambda: boot(twin),
        lambda: load_row(twin, inventory, scratch),  # the last one, since it changes what the others measure
    ]
    for step in steps:
        rows.append(step())
        print(render(rows[-1]), flush=True)
    return rows


def reload_row(twin: Twin) -> Row:
    """Return the row for a driver reload."""
    times = reload_times(twin)
    return Row("reload: driver's bind to pinned interrupt", statistics.median(times), "s", 1.0, middle(times))


def agent_row(twin: Twin) -> Row:
    """Return the row for one run of the agent that has nothing to change."""
    nothing = cpu_seconds(twin, "python3 -c pass")
    agent = cpu_seconds(twin, "edgenpu-tuning agent")
    return Row(
        "agent, nothing to change / python3 -c pass", agent / nothing, "x", None, f"{agent:.2f} / {nothing:.2f} CPU s"
    )


def diagnose_row(twin: Twin) -> Row:
    """Return the row for a whole diagnosis on the box.

    The limit is a fifth of what the shell diagnosis that people use has cost on such a twin.
    """
    nothing = cpu_seconds(twin, "python3 -c pass")
    diagnosis = cpu_seconds(twin, "edgenpu-tuning diagnose")
    detail = f"{diagnosis:.2f} / {nothing:.2f} CPU s"
    return Row("diagnose on the box / python3 -c pass", diagnosis / nothing, "x", SHELL_DIAGNOSIS / 5, detail)


def load_row(twin: Twin, inventory: Path, scratch: Path) -> Row:
    """Return the row for loads of the card's module with irq_affinity_born_there, which this switches on.

    Meanwhile udev does not act on events: the agent, which they would start, must have no part in it.
    """
    more = (f"-ediagnostics_report_dir={scratch / 'reports'}", "-eirq_affinity_born_there=true")
    play(inventory, CHECKOUT / "playbooks" / "site.yml", *more)
    script = f"""
    set -e
    udevadm settle
    trap 'udevadm control --start-exec-queue' EXIT
    udevadm control --stop-exec-queue
    card=/sys/bus/pci/devices/0003:31:00.0
    for round in $(seq {ROUNDS}); do
        for how in wrapped plain; do
            option=
            [ $how = wrapped ] || option=--ignore-install
            modprobe -r ax_pcie_host_dev
            begin=$(date +%s%N)
            modprobe $option ax_pcie_host_dev
            end=$(date +%s%N)
            irq=$(ls $card/msi_irqs)
            allowed=$(cat /proc/irq/$irq/smp_affinity_list)
            echo "0 1" > $card/fire
            until [ "$(cat $card/handled)" = 1 ]; do sleep 0.05; done
            counts=$(cat /sys/kernel/irq/$irq/per_cpu_count)
            echo "$how $(((end - begin) / 1000)) $allowed $counts $(cat /proc/irq/default_smp_affinity)"
        done
    done
    """
    return born_there(guest(twin, script), ROUNDS, cpu=4, all_cpus="0-7")


def machine() -> str:
    """Return what this machine is, and how busy it is now, in words."""
    return f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f} before it began"


def keep(run: Mapping[str, Any]) -> None:
    """Write a run to .cache/bench.json and into this folder's README."""
    (CHECKOUT / ".cache" / "bench.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    page = Path(__file__).with_name("README.md")
    page.write_text(with_run(page.read_text(encoding="utf-8"), run), encoding="utf-8")


def main() -> int:
    """Boot, measure, tell."""
    where = machine()
    try:
        with tempfile.TemporaryDirectory(prefix="edgenpu-bench-") as directory, Twin.start(NAME) as twin:
            rows = measure(twin, Path(directory))
        keep(as_data(time.strftime("%Y-%m-%d"), where, rows))
    except (BenchError, TwinError) as error:
        sys.exit(str(error))
    return 1 if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
