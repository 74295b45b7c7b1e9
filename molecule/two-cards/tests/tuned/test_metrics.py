# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics as node_exporter's textfile collector would read them, while systemd and udev have them written."""

from __future__ import annotations

import pytest
from box import COMMAND, RELOAD, Box
from prometheus_client.parser import text_string_to_metric_families

CARDS = {"0002:21:00.0": 4, "0003:31:00.0": 5}
PLACE = "/var/lib/prometheus/node-exporter"
TAKEN, RUN = "edgenpu_diagnosis_timestamp_seconds", "edgenpu_agent_last_run_timestamp_seconds"

Labels = frozenset[tuple[str, str]]


def read(box: Box) -> dict[str, dict[Labels, float]]:
    """Return all samples that are there, by metric and by labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(box.shell(f"cat {PLACE}/*.prom")):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def when(box: Box, name: str) -> float:
    """Return the one sample of a metric that is a time."""
    (time,) = read(box)[name].values()
    return time


def after(box: Box, script: str) -> None:
    """Let something happen to the machine, until the agent has run and the metrics that it asked for are written."""
    box.after(script)
    box.shell("""
    tries=0
    while unit=$(systemctl show edgenpu-tuning-metrics.service --property=Job,ActiveState) && case "$unit" in
        *Job=[0-9]* | *activating*) true ;;
        *) false ;;
    esac; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ]; then echo "the metrics are never written: $unit" >&2; exit 1; fi
        sleep 0.1
    done
    """)


def test_node_exporter_may_read_them_and_finds_nothing_else(box: Box) -> None:
    """It runs as nobody in particular; half a file beside them would be taken for another one. An event brings both."""
    after(box, RELOAD)
    listed = box.shell(f"cd {PLACE}; stat --format='%n %a %U' * .[!.]* 2>/dev/null || true").splitlines()
    assert listed == ["edgenpu_tuning.prom 644 root", "edgenpu_tuning_agent.prom 644 root"]


@pytest.mark.parametrize("card, cpu", CARDS.items())
def test_they_count_what_the_kernel_counts(box: Box, card: str, cpu: int) -> None:
    """By the CPU that served, as /proc/interrupts has it."""
    box.fire(20, card)
    box.shell(f"{COMMAND} metrics --write")
    served = read(box)["edgenpu_interrupts_total"]
    (irq,) = box.irqs(card)
    told = {dict(labels)["cpu"]: count for labels, count in served.items() if ("bdf", card) in labels}
    assert told == {str(one): count for one, count in box.counts(irq).items() if count}
    assert told[str(cpu)] >= 20


def test_what_is_lost_is_seen_by_the_timer_and_mended_by_the_next_event(box: Box) -> None:
    """Nobody runs the command here: the timer writes that one interrupt is astray, the agent that it is back."""
    (irq,) = box.irqs("0002:21:00.0")
    # The file is replaced in one step, so whoever sees another time sees a whole file.
    box.shell(f"""
    echo 0-7 > /proc/irq/{irq}/smp_affinity_list
    before=$(grep '^{TAKEN} ' {PLACE}/edgenpu_tuning.prom)
    tries=0
    while [ "$(grep '^{TAKEN} ' {PLACE}/edgenpu_tuning.prom)" = "$before" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 1200 ]; then systemctl list-timers >&2; exit 1; fi
        sleep 0.1
    done
    """)
    first, second = (frozenset({("bdf", card), ("vector", "0")}) for card in CARDS)
    assert read(box)["edgenpu_interrupt_on_wished_cpu"] == {first: 0, second: 1}
    ran = when(box, RUN)
    after(box, RELOAD)
    assert when(box, RUN) > ran
    assert read(box)["edgenpu_interrupt_on_wished_cpu"] == {first: 1, second: 1}
