# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python -m bench.parsers`: reads /proc/interrupts of a very large host in a fresh interpreter. Needs no twin."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CPUS, NUMBERED, NAMED = 1152, 1010, 24
ROUNDS = 5
LIMIT_S, LIMIT_MIB = 1.0, 200
COLLECTIONS = Path(__file__).resolve().parents[1] / ".cache" / "link"

READ = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import read_proc_interrupts
begin = time.perf_counter()
table = read_proc_interrupts(Root(sys.argv[2]))
wall = time.perf_counter() - begin
print(wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(table.lines) + len(table.per_cpu))
"""


def table() -> str:
    """Return /proc/interrupts of a host with CPUS processors, MSI-X vectors of many disks, the counts of years."""
    chance = random.Random(1)
    rows = ["           " + "".join(f"CPU{cpu:<8}" for cpu in range(CPUS))]
    for irq in range(NUMBERED):
        counts = "".join(f"{chance.choice((0, 0, chance.randrange(2**32))):10} " for _cpu in range(CPUS))
        disk, queue = divmod(irq, 64)
        rows.append(f"{irq:4}: {counts} IR-PCI-MSIX-0000:{disk:02x}:00.0  {queue:3}-edge      nvme{disk}q{queue}")
    for number in range(NAMED):
        counts = "".join(f"{chance.randrange(2**32):10} " for _cpu in range(CPUS))
        rows.append(f"N{number:03}: {counts}  Some interrupts")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Measure, tell."""
    with tempfile.TemporaryDirectory(prefix="edgenpu-bench-") as directory:
        (Path(directory) / "proc").mkdir()
        (Path(directory) / "proc" / "interrupts").write_text(table(), encoding="ascii")
        walls, peaks = [], []
        for _round in range(ROUNDS):
            argv = [sys.executable, "-c", READ, str(COLLECTIONS), directory]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            wall_s, peak_mib, lines = done.stdout.split()
            if int(lines) != NUMBERED + NAMED:
                sys.exit(f"{lines} of {NUMBERED + NAMED} lines were understood")
            walls.append(float(wall_s))
            peaks.append(float(peak_mib))
    wall, peak = statistics.median(walls), max(peaks)
    size = f"{CPUS} CPUs x {NUMBERED + NAMED} lines"
    print(f"{size}: {wall:.2f} s (limit {LIMIT_S:g}), {peak:.0f} MiB (limit {LIMIT_MIB})")
    return 0 if wall < LIMIT_S and peak < LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
