# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine as it is seen from outside: through ssh, and through the card's wires. Nothing of the product is used."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import testinfra
from testinfra.backend.base import CommandResult

from twin import Twin

CARD = "0003:31:00.0"
RELOAD = "modprobe -r ax_pcie_host_dev; modprobe ax_pcie_host_dev"
DRIVER = "/sys/bus/pci/drivers/ax_pcie_dev_host"
UNIT = "edgenpu-tuning.service"
COMMAND = "/usr/local/bin/edgenpu-tuning"
DROP_IN = "/etc/systemd/system/irqbalance.service.d/edgenpu-tuning.conf"

_LOOK = f"""
irq=$(ls /sys/bus/pci/devices/{CARD}/msi_irqs 2>/dev/null | head -n 1)
echo "allowed=$(cat /proc/irq/$irq/smp_affinity_list)"
echo "effective=$(cat /proc/irq/$irq/effective_affinity_list)"
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
    echo "${{policy##*/}}=$(cat $policy/scaling_governor 2>/dev/null || echo offline)"
done
"""

# An event is over when udev has run its rules and systemd has nothing left to do for the agent.
_CALM = f"""
udevadm settle --timeout=30
tries=0
while agent=$(systemctl show {UNIT} --property=Job,ActiveState,Result) && case "$agent" in
    *Job=[0-9]* | *activating*) true ;;
    *) false ;;
esac; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ]; then echo "the agent does not end: $agent" >&2; exit 1; fi
    sleep 0.1
done
echo "$agent"
set +e
"""

_PLACES = " ".join(
    (
        "/etc /home /opt /root /usr/bin /usr/lib/edgenpu-tuning /usr/lib/systemd /usr/lib/udev",
        "/usr/local /usr/sbin /var/lib",
    )
)
_FILES = f"""
find {_PLACES} -xdev '(' -path /var/lib/apt -o -path /var/lib/dpkg -o -path '*/.ansible' ')' -prune \
    -o -printf '%p\\t%y %m %U:%G %l\\n' 2>/dev/null
find /etc /usr/lib/edgenpu-tuning /usr/local /var/lib/edgenpu-tuning -xdev -type f -exec sha256sum '{{}}' + 2>/dev/null
"""

_UNITS = f"""
systemctl show irqbalance.service --property=ExecStart
systemctl show {UNIT} --property=LoadState
systemctl show --property=NFailedUnits
echo "Process=$(tr '\\0' ' ' < /proc/$(pidof irqbalance)/cmdline)"
echo "Command=$(command -v edgenpu-tuning)"
"""


class State(NamedTuple):
    """CPUs that the card's interrupt may use and uses, governors by policy, how the agent's last run ended."""

    allowed: str
    effective: str
    governors: Mapping[str, str]
    agent: str = "success"


SHIPPED_GOVERNORS = {"policy0": "schedutil", "policy4": "schedutil", "policy6": "schedutil"}
TUNED_GOVERNORS = {"policy0": "schedutil", "policy4": "performance", "policy6": "performance"}
TUNED = State("4", "4", TUNED_GOVERNORS)


class Place(NamedTuple):
    """CPUs that one vector of a card may use, and those that it uses."""

    allowed: str
    effective: str


class Thread(NamedTuple):
    """The thread that does an interrupt's work: the CPUs it may run on, and the one it ran on last."""

    allowed: str
    last: str


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line)


class Box:
    """One machine.

    TWIN is its hardware, SSH_CONFIG says how to log in, SOCKETS is a directory for connections that are kept open
    between commands, NOTES one for what later steps need.
    """

    def __init__(self, twin: Twin, ssh_config: Path, sockets: Path, notes: Path) -> None:
        self.twin = twin
        self._sockets = sockets
        self._notes = notes
        shared = f"-o ControlPath={sockets}/%C"
        self.root, self.owner = (
            testinfra.get_host(f"ssh://{user}@{twin.name}", ssh_config=str(ssh_config), ssh_extra_args=shared)
            for user in ("root", "owner")
        )

    def attempt(self, script: str, *, user: str = "root") -> CommandResult:
        """Run a shell script and return how it ended."""
        return (self.root if user == "root" else self.owner).run("sh -c %s", script)

    def shell(self, script: str, *, user: str = "root") -> str:
        """Run a shell script that has to succeed and return what it printed."""
        result = self.attempt(f"set -e\n{script}", user=user)
        if result.rc:
            raise AssertionError(f"{script.strip()}\nended with {result.rc}: {result.stdout}{result.stderr}")
        return result.stdout

    def state(self) -> State:
        """Return where the card's interrupt is and what the governors are."""
        return self.after(":")

    def after(self, script: str) -> State:
        """Let something happen to the machine, and return its state when the events of it are over."""
        found = _properties(self.shell(f"{script}\n{_CALM}\n{_LOOK}"))
        governors = {name: value for name, value in found.items() if name.startswith("policy")}
        return State(found["allowed"], found["effective"], governors, found["Result"])

    def irqs(self, card: str = CARD) -> list[int]:
        """Return the numbers that a card's interrupts have now, by vector."""
        return sorted(map(int, self.shell(f"ls /sys/bus/pci/devices/{card}/msi_irqs").split()))

    def irq(self) -> int:
        """Return the number that the card's only interrupt has now."""
        (number,) = self.irqs()
        return number

    def places(self, *cards: str) -> dict[str, list[Place]]:
        """Return where each vector of the cards is, when the events of the machine are over."""
        self.shell(_CALM)
        found = {}
        for card in cards:
            files = "smp_affinity_list effective_affinity_list"
            lines = self.shell(f"for irq in {self._words(card)}; do cd /proc/irq/$irq; cat {files}; done").splitlines()
            found[card] = [Place(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
        return found

    def _words(self, card: str) -> str:
        return " ".join(map(str, self.irqs(card)))

    def fire(self, count: int, card: str, vector: int = 0) -> dict[int, int]:
        """Let the card's driver raise one of its interrupts, and return how many each CPU served (not zero)."""
        irq = self.irqs(card)[vector]
        before = self.counts(irq)
        self.shell(f"echo {vector} {count} > /sys/bus/pci/devices/{card}/fire")
        return self._grown(irq, before)

    def _grown(self, irq: int, before: Mapping[int, int]) -> dict[int, int]:
        return {cpu: number - before[cpu] for cpu, number in self.counts(irq).items() if number > before[cpu]}

    def counts(self, irq: int) -> dict[int, int]:
        """Return how often each CPU has served an interrupt; the kernel tells it of online CPUs only."""
        header, line = self.shell(f"head -n 1 /proc/interrupts; grep '^ *{irq}:' /proc/interrupts").splitlines()
        cpus = [int(word.removeprefix("CPU")) for word in header.split()]
        return dict(zip(cpus, map(int, line.split()[1 : len(cpus) + 1]), strict=True))

    def handled(self) -> int:
        """Return how often the thread of the card's interrupt has run."""
        return int(self.shell(f"cat /sys/bus/pci/devices/{CARD}/handled"))

    def thread(self) -> Thread:
        """Return where the thread of the card's interrupt runs."""
        task = self.shell(f"grep -l -e '^irq/{self.irq()}-' /proc/[0-9]*/comm").strip().removesuffix("/comm")
        allowed = self.shell(f"grep Cpus_allowed_list: {task}/status").split()[1]
        return Thread(allowed, self.shell(f"cat {task}/stat").rpartition(")")[2].split()[36])

    def served_by(self, count: int, over_s: float = 0, card: str = CARD) -> dict[int, int]:
        """Raise COUNT MSIs from outside, at once or over seconds, and return how many each CPU served (not zero).

        CARD is the one whose interrupts can be raised from there.
        """
        irq = self.irqs(card)[0]
        before = self.counts(irq)
        if over_s:
            for _unused in range(count):
                self.twin.raise_msi(1)
                time.sleep(over_s / count)
        else:
            self.twin.raise_msi(count)
        return self._grown(irq, before)

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Return what a rollback has to give back: files (kind, mode, owner, contents), units, the kernel's values."""
        files: dict[str, str] = {}
        for line in self.attempt(_FILES).stdout.splitlines():
            path, tab, about = line.partition("\t")
            if tab:
                files[path] = about
            else:
                checksum, _unused, path = line.partition("  ")
                files[path] += f" {checksum}"
        units = _properties(self.attempt(_UNITS).stdout)
        units["ExecStart"] = units["ExecStart"].partition("argv[]=")[2].partition(" ;")[0]
        state = self.state()
        return {"files": files, "units": units, "values": {"card": state.allowed, **state.governors}}

    def changed_files(self, script: str) -> list[str]:
        """Run a shell script and return the files that it wrote, made or removed (as their directories)."""
        self.shell("touch /run/stamp; sleep 0.1")  # a file's time is as fine as the kernel's tick
        self.shell(script)
        return self.shell(f"find {_PLACES} -xdev -newercm /run/stamp 2>/dev/null || true").splitlines()

    def note(self, name: str, value: object) -> None:
        """Keep a value for a later step."""
        (self._notes / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")

    def noted(self, name: str) -> dict[str, dict[str, str]]:
        """Return a value that an earlier step kept."""
        value: dict[str, dict[str, str]] = json.loads((self._notes / f"{name}.json").read_text(encoding="utf-8"))
        return value

    def diagnosis(self) -> dict[str, Any]:
        """Return what the command on the machine finds, as data."""
        # It fails where it finds something critical, and tells all the same.
        report: dict[str, Any] = json.loads(self.attempt(f"{COMMAND} diagnose --json").stdout)
        return report

    def findings(self) -> dict[str, dict[str, Any]]:
        """Return what the command on the machine finds, by id."""
        return {finding["id"]: finding for finding in self.diagnosis()["findings"]}

    def report(self, when: str = "done") -> dict[str, Any]:
        """Return the report of check mode ("predicted") or of the last run ("done")."""
        path = self._notes / when / f"{self.twin.name}.json"
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report

    def changes(self, when: str) -> set[str]:
        """Return the paths that the report of "predicted" or "done" says were (or would be) changed."""
        report = self.report(when)
        return {change["path"] for role in report["actions"].values() for change in role.get("changes", [])}

    def hang_up(self) -> None:
        """Close the connections that are kept open between commands; a reboot may leave them dead."""
        for socket in self._sockets.iterdir():
            command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "whoever"]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
