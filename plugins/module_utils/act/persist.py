# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stays on the box so that the tuning is kept: wishes, agent, unit, udev rules, irqbalance's policy."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import py_compile
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import ABSENT, FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import OWN_POLICY as IRQBALANCE_POLICY
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.agent import (
    CURRENT,
    SUMS,
    is_sound,
    read_sums,
    sums_line,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import read_irqbalance, startable
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import (
    METRICS,
    WISHES_DIR,
    read_wishes,
    wishes_path,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import SCHEMA as WISHES_SCHEMA

if TYPE_CHECKING:  # never run: these lines tell Ansible's payload builder what the agent is made of
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act import agent, born, bundle, look, metrics, undo

    _CARRIED = (agent, born, bundle, look, metrics, undo)

COLLECTION = "ansible_collections.edgenpu.tuning.plugins.module_utils"
AGENT_MODULES = (
    "act",
    "act.agent",
    "act.blocks",
    "act.born",
    "act.bundle",
    "act.ledger",
    "act.look",
    "act.metrics",
    "act.persist",
    "act.sink",
    "act.tune",
    "act.undo",
    "decide",
    "decide.affinity",
    "decide.blocks",
    "decide.boot_findings",
    "decide.catalogue",
    "decide.clock_findings",
    "decide.clocks",
    "decide.conflict_findings",
    "decide.describe",
    "decide.drift",
    "decide.driver_findings",
    "decide.expected_gain",
    "decide.findings",
    "decide.host_findings",
    "decide.interrupt_findings",
    "decide.kernel_log",
    "decide.metrics",
    "decide.pcie_findings",
    "decide.raspberry_pi",
    "decide.scrub",
    "decide.shapes",
    "decide.steering",
    "decide.topology",
    "observe",
    "observe.agent",
    "observe.apt",
    "observe.axcl",
    "observe.axcl_host",
    "observe.board",
    "observe.captured",
    "observe.cpufreq",
    "observe.cpuidle",
    "observe.cpumask",
    "observe.cpus",
    "observe.devfreq",
    "observe.driver",
    "observe.files",
    "observe.host",
    "observe.identity",
    "observe.interrupts",
    "observe.irqbalance",
    "observe.kernels",
    "observe.locks",
    "observe.openpgp",
    "observe.packages",
    "observe.pci",
    "observe.ran",
    "observe.raspberry_pi",
    "observe.services",
    "observe.thermal",
    "observe.wishes",
)

BASE = "/usr/lib/edgenpu-tuning"
FRONT_DOOR = "edgenpu-tuning"
_UNFINISHED = ".new"  # behind the name of an agent that is being installed
COMMAND = "/usr/local/bin/edgenpu-tuning"
UNIT_NAME = "edgenpu-tuning.service"
UNIT = "/etc/systemd/system/" + UNIT_NAME
ENABLED = "/etc/systemd/system/sysinit.target.wants/" + UNIT_NAME
LATE_UNIT_NAME = "edgenpu-tuning-late.service"
LATE_UNIT = "/etc/systemd/system/" + LATE_UNIT_NAME
LATE_ENABLED = "/etc/systemd/system/multi-user.target.wants/" + LATE_UNIT_NAME
METRICS_UNIT_NAME = "edgenpu-tuning-metrics.service"
METRICS_UNIT = "/etc/systemd/system/" + METRICS_UNIT_NAME
METRICS_TIMER_NAME = "edgenpu-tuning-metrics.timer"
METRICS_TIMER = "/etc/systemd/system/" + METRICS_TIMER_NAME
METRICS_ENABLED = "/etc/systemd/system/timers.target.wants/" + METRICS_TIMER_NAME
UDEV_RULES = "/etc/udev/rules.d/90-edgenpu-tuning.rules"
MODPROBE_CONF = "/etc/modprobe.d/edgenpu-tuning.conf"
IRQBALANCE_SCRIPT = IRQBALANCE_POLICY + "/npu-cards"
IRQBALANCE_DROP_IN = "/etc/systemd/system/irqbalance.service.d/edgenpu-tuning.conf"

_UNIT_TEXT = (
    """\
# Written by edgenpu.tuning; events and boot start it, nothing polls.
[Unit]
Description=Interrupts of NPU cards and CPU clocks, as wished in $WISHES
# Default dependencies would wait for sysinit.target, and that waits for the card's firmware to be loaded.
DefaultDependencies=no
After=local-fs.target systemd-udevd.service
Conflicts=shutdown.target
# Whatever uses the card starts after sysinit.target, and finds the interrupt in its place.
Before=sysinit.target shutdown.target
# Each event restarts this unit; a storm of CPU events must not use up a start limit.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=$BASE/current/$DOOR agent
TimeoutStartSec=180
# "Restart" waits for a run that is under way instead of killing it: at boot one event follows the other, and a run that
# is begun again each time would never place the interrupt. One that hangs is killed by the two limits.
KillSignal=SIGCONT
TimeoutStopSec=180
TimeoutStartFailureMode=kill

[Install]
WantedBy=sysinit.target
""".replace("$WISHES", WISHES_DIR)
    .replace("$BASE", BASE)
    .replace("$DOOR", FRONT_DOOR)
)

_LATE_UNIT_TEXT = """\
# Written by edgenpu.tuning: other services of the boot set clocks, too (cpufrequtils, tuned and the like), and no event
# tells of it; so the wishes are put in force once more when all of them are through.
[Unit]
Description=Interrupts of NPU cards and CPU clocks, once the boot is over
DefaultDependencies=no
After=multi-user.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
ExecStart=$BASE/current/$DOOR agent
TimeoutStartSec=180

[Install]
WantedBy=multi-user.target
""".replace("$BASE", BASE).replace("$DOOR", FRONT_DOOR)

_METRICS_UNIT_TEXT = """\
# Written by edgenpu.tuning (diagnostics_metrics_dir): the host's state for node_exporter's textfile collector.
[Unit]
Description=Metrics of NPU cards, interrupts and clocks

[Service]
Type=oneshot
ExecStart=$BASE/current/$DOOR metrics --write
Nice=19
TimeoutStartSec=300
""".replace("$BASE", BASE).replace("$DOOR", FRONT_DOOR)

_METRICS_TIMER_TEXT = """\
# Written by edgenpu.tuning (diagnostics_metrics_interval).
[Unit]
Description=Metrics of NPU cards, interrupts and clocks, again and again

[Timer]
OnActiveSec=0
OnUnitActiveSec=%s
AccuracySec=5s

[Install]
WantedBy=timers.target
"""

# "Restart", not "start": an event that arrives while the agent runs must not be lost.
_UDEV_RUN = 'RUN+="%s --no-block restart ' + UNIT_NAME + '"'
_UDEV_CARD = 'ACTION=="bind", SUBSYSTEM=="pci", ATTR{vendor}=="%s", ATTR{device}=="%s", %s'
# udev handles the events of one device one after the other: a worker that loads the card's module sits there until the
# firmware is loaded, and the card's "bind" waits behind it. The driver's own event, which the kernel sends when all its
# cards are bound (drivers/base/driver.c, driver_register), waits for nobody.
_UDEV_DRIVER = 'ACTION=="add", SUBSYSTEM=="drivers", DEVPATH=="/bus/pci/drivers/%s", %s'
_UDEV_CPU = 'ACTION=="online|offline", SUBSYSTEM=="cpu", %s'
# cpufreq policies raise no event of their own; the driver that makes them does.
_UDEV_CPUFREQ = 'ACTION=="bind", DRIVER=="*cpufreq*", %s'

_IRQBALANCE_TEXT = """\
#!/bin/sh
# Written by edgenpu.tuning. irqbalance asks this for every interrupt: $1 is the device's directory in sysfs.
# NPU cards are left alone, "1" hands all others on to irqbalance's own judgement.
read -r vendor 2>/dev/null <"$1/vendor" || exit 1
read -r device 2>/dev/null <"$1/device" || exit 1
case "$vendor:$device" in
%s)
    echo "ban=true"
    exit 0
    ;;
esac
exit 1
"""

_DROP_IN_TEXT = """\
# Written by edgenpu.tuning: irqbalance leaves the interrupts of NPU cards alone and balances all others.
[Service]
ExecStart=
ExecStart=%s --policyscript=%s
"""


_MODPROBE_TEXT = """\
# Written by edgenpu.tuning (irq_affinity_born_there): the cards' interrupts are born on their CPU.
"""
# An initramfs may hold this file without the command: the module has to load all the same.
_MODPROBE_LINE = (
    "install %(module)s if [ -x %(door)s ]; then %(door)s load %(module)s $CMDLINE_OPTS; "
    "else modprobe --ignore-install %(module)s $CMDLINE_OPTS; fi\n"
)


class Kept(NamedTuple):
    """What was written (or would be), each with its state before and after; what was refused; what is unknown yet."""

    changes: List[Change]
    files: List[Tuple[str, FileState, FileState]]
    refused: List[Change]
    unknown: List[str]


def agent_sources() -> Dict[str, bytes]:
    """Return the agent's modules as path below its directory -> source, read through this module's own loader.

    Works from a checkout, from Ansible's zipped payload and from the installed agent itself.
    """
    sources: Dict[str, bytes] = {}
    parts = COLLECTION.split(".")
    for depth in range(1, len(parts) + 1):
        sources["/".join(parts[:depth]) + "/__init__.py"] = b""
    for short in AGENT_MODULES:
        name = "%s.%s" % (COLLECTION, short)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            raise WishError("this payload lacks the module %s; install the collection again" % name)
        path = name.replace(".", "/") + ("/__init__.py" if "." not in short else ".py")
        source = loader.get_source(name) or ""  # bytes from the loader that ansible-test uses
        sources[path] = source if isinstance(source, bytes) else source.encode("utf-8")
    return sources


def agent_files(front_door: str, python: str) -> Dict[str, bytes]:
    """Return all files of an agent's directory; FRONT_DOOR is its command's source, PYTHON runs it."""
    files = agent_sources()
    # Isolated and without site: nothing in the environment or in site-packages changes or slows the agent.
    shebang = "#!%s -IS\n" % python
    files[FRONT_DOOR] = (shebang + front_door).encode("utf-8")
    return files


def agent_name(files: Mapping[str, bytes]) -> str:
    """Return the directory's name for an agent made of FILES: its checksum is the answer to "current?"."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.encode("utf-8") + b"\0" + hashlib.sha256(files[path]).digest())
    return "agent-" + digest.hexdigest()[:16]


def _is_intact(sink: Sink, directory: str, files: Mapping[str, bytes]) -> bool:
    door = directory + "/" + FRONT_DOOR
    if not sink.state(door).mode & 0o100 or sink.root.data(door) != files[FRONT_DOOR]:
        return False
    where = sink.host_path(directory)
    try:
        sums = read_sums(where)
    except (OSError, ValueError):
        return False
    return all(is_sound(os.path.join(where, path), files[path], sums) for path in files if path != FRONT_DOOR)


def remove_agent(sink: Sink, directory: str) -> None:
    """Remove an agent, and what a run that was killed while installing it has left."""
    for path in (directory + _UNFINISHED, directory):
        sink.remove_tree(path)


def _install_agent(sink: Sink, directory: str, files: Mapping[str, bytes]) -> None:
    """Write the agent beside its final place, compile it there, and rename: a killed run leaves no half agent."""
    scratch = directory + _UNFINISHED
    sink.remove_tree(scratch)
    sums = []
    for path, content in files.items():
        where = sink.host_path(scratch + "/" + path)
        sink.make_parents(scratch + "/" + path)
        with open(where, "wb") as stream:
            stream.write(content)
        if path == FRONT_DOOR:
            os.chmod(where, 0o755)
        else:
            os.chmod(where, 0o644)
            compiled = py_compile.compile(
                where,
                dfile=directory + "/" + path,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            with open(str(compiled), "rb") as stream:
                sums.append(sums_line(os.path.relpath(str(compiled), sink.host_path(scratch)), stream.read()))
    with open(sink.host_path(scratch + "/" + SUMS), "w", encoding="utf-8") as listing:
        listing.writelines(sums)
    sink.sync_tree(scratch)
    sink.remove_tree(directory)
    os.rename(sink.host_path(scratch), sink.host_path(directory))


def _text_file(text: str, mode: int = 0o644) -> FileState:
    return FileState(text.encode("utf-8"), None, mode)


def _systemctl(root: Root) -> str:
    return next((path for path in ("/usr/bin/systemctl", "/bin/systemctl") if root.exists(path)), "/usr/bin/systemctl")


def _kinds(wishes: Mapping[str, Any]) -> Tuple[CardKind, ...]:
    """Return the catalogue in WISHES; () if it is damaged, of which the agent tells."""
    try:
        return resolve(wishes.get("catalogue"))
    except WishError:
        return ()


def _identities(wishes: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Return vendor and device of every card in WISHES, as sysfs has them."""
    return sorted({("0x%04x" % kind.vendor, "0x%04x" % kind.device) for kind in _kinds(wishes)})


def _udev_text(root: Root, wishes: Mapping[str, Mapping[str, Any]]) -> str:
    run = _UDEV_RUN % _systemctl(root)
    lines = ["# Written by edgenpu.tuning: what may undo the tuning starts the agent.", _UDEV_CPU % run]
    if "irq_affinity" in wishes:
        lines += [_UDEV_CARD % (vendor, device, run) for vendor, device in _identities(wishes["irq_affinity"])]
        drivers = {driver for kind in _kinds(wishes["irq_affinity"]) for driver in kind.drivers}
        lines += [_UDEV_DRIVER % (driver, run) for driver in sorted(drivers)]
    if "governor" in wishes:
        lines.append(_UDEV_CPUFREQ % run)
    return "\n".join(lines) + "\n"


def shared_files(root: Root, wishes: Mapping[str, Mapping[str, Any]], agent_directory: str) -> Dict[str, FileState]:
    """Return the files that serve all roles with WISHES (by role)."""
    return {
        CURRENT: FileState(None, agent_directory, 0o777),
        COMMAND: FileState(None, CURRENT + "/" + FRONT_DOOR, 0o777),
        UNIT: _text_file(_UNIT_TEXT),
        ENABLED: FileState(None, "../" + UNIT_NAME, 0o777),
        LATE_UNIT: _text_file(_LATE_UNIT_TEXT),
        LATE_ENABLED: FileState(None, "../" + LATE_UNIT_NAME, 0o777),
        UDEV_RULES: _text_file(_udev_text(root, wishes)),
    }


def irqbalance_files(root: Root, wishes: Mapping[str, Any]) -> Tuple[Dict[str, FileState], List[str]]:
    """Return the files that keep irqbalance off the cards; where they cannot, a sentence on what is unknown then.

    That is no refusal: a user who has a policy script of their own may well have taken care of the cards in it.
    """
    balancer = read_irqbalance(root)
    if not balancer.installed and not balancer.running:
        return {}, []
    # Of the process that runs, and of the unit: what a user has written there comes in force when ours has gone.
    for policy in (balancer.policy_script, balancer.unit_policy_without_ours):
        if policy not in (None, IRQBALANCE_POLICY):
            return {}, [
                "whether irqbalance leaves the cards alone: unknown until its policy script, %s, prints ban=true for "
                "them (it takes one script or directory only)" % policy
            ]
    identities = "|".join("%s:%s" % pair for pair in _identities(wishes))
    files = {IRQBALANCE_SCRIPT: _text_file(_IRQBALANCE_TEXT % identities, 0o755)}
    if balancer.exec_start_without_ours is None:
        if not balancer.running:
            return {}, []  # masked, or a program that nothing starts
        if balancer.policy_script == IRQBALANCE_POLICY:
            return files, []
        return files, [
            "whether irqbalance leaves the cards alone: unknown until it is started with --policyscript=%s, or by a "
            "unit file of systemd" % IRQBALANCE_POLICY
        ]
    if balancer.unit_policy_without_ours == IRQBALANCE_POLICY:
        return files, []
    if balancer.later_drop_in is not None:
        return files, [
            "whether irqbalance leaves the cards alone: unknown until %s, which systemd reads after %s, hands over "
            "--policyscript=%s in its ExecStart=" % (balancer.later_drop_in, IRQBALANCE_DROP_IN, IRQBALANCE_POLICY)
        ]
    files[IRQBALANCE_DROP_IN] = _text_file(_DROP_IN_TEXT % (balancer.exec_start_without_ours, IRQBALANCE_POLICY))
    return files, []


def module_files(root: Root, wishes: Mapping[str, Any]) -> Dict[str, FileState]:
    """Return the file that makes modprobe load the modules of this host's cards through our command, if wished."""
    if not wishes.get("born_there"):
        return {}
    paths = ["%s/%s/" % (DEVICES, name) for name in root.names(DEVICES)]
    present = {(root.text(path + "vendor"), root.text(path + "device")) for path in paths}
    modules = sorted(
        {
            module
            for entry in wishes.get("catalogue", ())
            if ("0x" + entry["vendor"], "0x" + entry["device"]) in present
            for module in entry.get("modules", ())
        }
    )
    door = "%s/%s" % (CURRENT, FRONT_DOOR)
    return {
        MODPROBE_CONF: _text_file(
            _MODPROBE_TEXT + "".join(_MODPROBE_LINE % {"module": module, "door": door} for module in modules)
        )
    }


def metrics_files(interval: str) -> Dict[str, FileState]:
    """Return the files that write metrics, again after each INTERVAL (a time span of systemd)."""
    return {
        METRICS_UNIT: _text_file(_METRICS_UNIT_TEXT),
        METRICS_TIMER: _text_file(_METRICS_TIMER_TEXT % interval),
        METRICS_ENABLED: FileState(None, "../" + METRICS_TIMER_NAME, 0o777),
    }


def show(state: FileState) -> Optional[str]:
    """Return what a person reads of a file's state; None for "nothing there"."""
    if state.target is not None:
        return "link to " + state.target
    return None if state.content is None else state.content.decode("utf-8", "replace")


def put_files(
    sink: Sink, ledger: Ledger, wanted: Mapping[str, Tuple[str, FileState]], why: str, check: bool
) -> List[Tuple[str, FileState, FileState]]:
    """Make each path what it should be ((role, state) by path); return those that were not, with before and after."""
    differing = []
    for path, (_role, after) in wanted.items():
        before = sink.state(path)
        same_mode = before.mode == after.mode or after.target is not None
        if (before.content, before.target) != (after.content, after.target) or not same_mode:
            differing.append((path, before, after))
    if check or not differing:
        return differing
    for path, _before, _after in differing:
        ledger.remember_file(wanted[path][0], path)
    ledger.set_pending([*ledger.pending, *(path for path, _before, _after in differing)])
    ledger.save()
    for path, _before, after in differing:
        sink.put(path, after)
    return differing


def overdue(paths: Iterable[str], written: Iterable[str]) -> List[Change]:
    """Return as changes what an earlier run left pending (PATHS) and this one has not WRITTEN again.

    Telling systemd, udev or irqbalance of it is a change of the host, even where no file differs any more.
    """
    why = "an interrupted run changed this file; systemd, udev or irqbalance is told of it by this one"
    read_by_others = ("/etc/systemd/system/", "/etc/udev/rules.d/", IRQBALANCE_SCRIPT)
    missed = [path for path in paths if path.startswith(read_by_others) and path not in set(written)]
    return [Change(path, "not told", "told", why) for path in missed]


def follow_up(sink: Sink, ledger: Ledger, runner: Runner) -> List[Change]:
    """Tell systemd, udev and irqbalance about the files that changed; return what they refused.

    What is pending is on disk, so that a run that was killed before this is made up for by the next one.
    """
    paths = ledger.pending
    commands: List[List[str]] = []
    timed = sink.state(METRICS_TIMER) != ABSENT
    if METRICS_TIMER in paths and not timed:
        # It fails where systemd knows them no more, which is just as well.
        runner(["systemctl", "stop", METRICS_TIMER_NAME, METRICS_UNIT_NAME], 30.0)
    gone = [name for path, name in ((UNIT, UNIT_NAME), (LATE_UNIT, LATE_UNIT_NAME)) if path in paths]
    if any(path.startswith("/etc/systemd/system/") for path in paths):
        commands.append(["systemctl", "daemon-reload"])
    if any(path.startswith("/etc/udev/rules.d/") for path in paths):
        commands.append(["udevadm", "control", "--reload"])
    # A unit that has been removed or masked since refuses to be restarted.
    if {IRQBALANCE_SCRIPT, IRQBALANCE_DROP_IN}.intersection(paths) and startable(sink.root):
        commands.append(["systemctl", "try-restart", "irqbalance.service"])
    if {METRICS_UNIT, METRICS_TIMER, METRICS_ENABLED, wishes_path(METRICS)}.intersection(paths) and timed:
        commands.append(["systemctl", "restart", METRICS_TIMER_NAME])  # which also writes them at once
    for name in gone:
        if sink.state(UNIT) == ABSENT:
            runner(["systemctl", "reset-failed", name], 30.0)  # fails where nothing had failed, which is just as well
    refused = []
    for argv in commands:
        ran = runner(argv, 30.0)
        if ran.status != 0:
            refused.append(Change(" ".join(argv), None, None, "exit status %d: %s" % (ran.status, ran.output.strip())))
    if not refused:
        ledger.set_pending(())
        ledger.save()
    return refused


def keep(
    sink: Sink,
    ledger: Ledger,
    role: str,
    wishes: Mapping[str, Any],
    front_door: str,
    python: str,
    runner: Runner,
    check: bool,
) -> Kept:
    """Leave on the box what keeps a role's WISHES in force; change nothing that is so already."""
    left_over = ledger.pending
    on_box, _problems = read_wishes(sink.root)
    on_box[role] = dict(wishes)
    files = agent_files(front_door, python)
    name = agent_name(files)
    directory = "%s/%s" % (BASE, name)
    wanted = {path: (SHARED, state) for path, state in shared_files(sink.root, on_box, name).items()}
    document = json.dumps({"schema": WISHES_SCHEMA, "wishes": wishes}, indent=1, sort_keys=True) + "\n"
    wanted[wishes_path(role)] = (role, _text_file(document))
    unknown: List[str] = []
    if role == "irq_affinity":
        extra, unknown = irqbalance_files(sink.root, wishes)
        extra.update(module_files(sink.root, wishes))
        wanted.update((path, (role, state)) for path, state in extra.items())
    later: Tuple[str, ...] = ()  # files that the agent will write
    if role == METRICS:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import MetricsWishes

        asked = MetricsWishes.from_data(wishes)
        wanted.update((path, (role, state)) for path, state in metrics_files(asked.interval).items())
        later = asked.paths
    obsolete = [entry for entry in ledger.entries(role, "file") if entry.id not in (*wanted, *later)]
    wanted.update((entry.id, (role, entry.state or ABSENT)) for entry in obsolete)
    changes = []
    for path in (*wanted, *later):
        sink.state(path)  # raises where something stands in the way, before anything has been written
    if not _is_intact(sink, directory, files):
        changes.append(Change(directory, None, "%d files" % len(files), "the agent, which keeps the wishes in force"))
        if not check:
            for parent in sink.missing_parents(directory):
                ledger.remember_made("directory", parent)
            ledger.remember_made("tree", directory)
            ledger.save()
            _install_agent(sink, directory, files)
    for path in () if check else later:
        ledger.remember_file(role, path)
    ledger.save()
    written = put_files(sink, ledger, wanted, role, check)
    changes += [
        Change(path, show(before), show(after), "keeps the wishes of %s in force" % role)
        for path, before, after in written
    ] + overdue(left_over, [path for path, _before, _after in written])
    if not check:
        for entry in obsolete:
            ledger.forget(entry)
        for entry in ledger.entries(kind="tree"):
            if entry.id != directory:
                remove_agent(sink, entry.id)
                ledger.forget(entry)
        ledger.save()
    refused = [] if check else follow_up(sink, ledger, runner)
    return Kept(changes, written, refused, unknown)
