# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""irqbalance: is it there, does it run, with which arguments, and what does systemd start it with.

The unit is put together as systemd.unit(5) says: the first file found in the search path, then every drop-in, of which
one hides another of the same name further down the search path, in the order of their names.
"""

from __future__ import annotations

import re
import shlex
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

SERVICE = "irqbalance.service"
OWN_DROP_IN = "edgenpu-tuning.conf"
# systemd.unit(5), "System Unit Search Path"; the first wins
UNIT_PATH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
BINARIES = ("/usr/sbin/irqbalance", "/sbin/irqbalance", "/usr/bin/irqbalance", "/usr/local/sbin/irqbalance")
CGROUPS = (
    "/sys/fs/cgroup/system.slice/" + SERVICE,
    "/sys/fs/cgroup/unified/system.slice/" + SERVICE,
    "/sys/fs/cgroup/systemd/system.slice/" + SERVICE,
)
# Options without an argument; every other letter takes one.
_FLAGS = "odfjV"
_BRACED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Irqbalance(NamedTuple):
    """What is known of irqbalance."""

    installed: bool
    running: bool | None  # None: /proc does not tell
    pid: int | None
    unit: str | None  # path of the unit file in force
    exec_start: str | None  # in force, all drop-ins included
    arguments: tuple[str, ...]  # of the running process, without its name
    policy_script: str | None  # of the running process, else what exec_start would hand over
    own_drop_in: bool
    exec_start_without_ours: str | None = None  # as if our drop-in were not there
    masked: bool = False
    drop_ins: tuple[str, ...] = ()  # paths in force, in systemd's order
    unit_policy: str | None = None  # what exec_start would hand over at the next start
    unit_policy_without_ours: str | None = None  # the same for exec_start_without_ours
    later_drop_in: str | None = None  # read after ours (or where ours would be), with an ExecStart= of its own


class Setting(NamedTuple):
    """One assignment in a unit file."""

    section: str
    key: str
    value: str


def parse_unit(text: str) -> List[Setting]:
    """Return the assignments of a unit file in order, joined lines put together (systemd.syntax(7))."""
    settings: List[Setting] = []
    section, pending = "", ""
    for raw in [*text.splitlines(), ""]:
        line = raw.strip()
        if pending and line[:1] in ("#", ";"):
            continue  # a comment within a joined line is skipped
        if not pending and (not line or line[0] in "#;"):
            continue
        line = pending + line
        if (len(line) - len(line.rstrip("\\"))) % 2:  # two are one backslash, and no continuation
            pending = line[:-1].rstrip() + " "
            continue
        pending = ""
        if line.startswith("[") and line.rstrip().endswith("]"):
            section = line.strip()[1:-1]
            continue
        key, equals, value = line.partition("=")
        if equals:
            settings.append(Setting(section, key.strip(), value.strip()))
    return settings


def values_of(settings: Sequence[Setting], key: str) -> List[str]:
    """Return the values of a list setting of [Service]; an empty assignment forgets those before it."""
    values: List[str] = []
    for setting in settings:
        if setting.section == "Service" and setting.key == key:
            values = [*values, setting.value] if setting.value else []
    return values


def parse_environment_file(text: str) -> Dict[str, str]:
    """Return the variables of an EnvironmentFile=."""
    found = {}
    for line in text.replace("\\\n", "").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name[:1] in ("#", ";", ""):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def split_words(text: str) -> List[str]:
    """Return the words of a command line; quotes that do not match are taken as they are."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def expand(exec_start: str, variables: Dict[str, str]) -> List[str]:
    """Return the words of an ExecStart= value: $NAME as several words, ${NAME} within one (systemd.service(5))."""
    words: List[str] = []
    for word in split_words(exec_start):
        name = word[1:]
        if word.startswith("$") and name.replace("_", "a").isalnum():
            words.extend(split_words(variables.get(name, "")))
            continue
        words.append(_BRACED.sub(lambda match: variables.get(match.group(1), ""), word))
    return words


def policy_script(arguments: Sequence[str]) -> Optional[str]:
    """Return what --policyscript (or -l, or an abbreviation) names; the last one counts. None if there is none."""
    found: Optional[str] = None
    pending = iter(arguments)
    for word in pending:
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            # getopt_long takes any unambiguous beginning; "--po" might be --powerthresh
            if len(name) > 4 and "--policyscript".startswith(name):
                found = value if equals else next(pending, None)
            continue
        if not word.startswith("-"):
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in _FLAGS:
                continue
            value = word[at:] or next(pending, "")
            if letter == "l":
                found = value
            break
    return found or None


def _hidden(root: Root, path: str) -> bool:
    """True for an empty file and for a link to /dev/null: both mean "as if it were not there"."""
    return root.link_target(path) == "/dev/null" or root.data(path, 1) == b""


def _unit_file(root: Root) -> Tuple[Optional[str], bool]:
    for place in UNIT_PATH:
        path = "%s/%s" % (place, SERVICE)
        if root.link_target(path) is not None or root.exists(path):
            return path, _hidden(root, path)
    return None, False


def _drop_in_files(root: Root) -> List[str]:
    """Return the drop-ins' paths in the order of their names; those for all services count, too, but come second."""
    chosen: Dict[str, str] = {}
    for directory in (SERVICE + ".d", "service.d"):
        for place in UNIT_PATH:
            for name in root.names("%s/%s" % (place, directory)):
                if name.endswith(".conf"):
                    chosen.setdefault(name, "%s/%s/%s" % (place, directory, name))
    return [chosen[name] for name in sorted(chosen) if not _hidden(root, chosen[name])]


def _settings(root: Root, paths: Sequence[str]) -> List[Setting]:
    settings: List[Setting] = []
    for path in paths:
        settings.extend(parse_unit(root.text(path) or ""))
    return settings


def _environment(root: Root, settings: Sequence[Setting]) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for value in values_of(settings, "Environment"):
        for word in split_words(value):
            name, equals, content = word.partition("=")
            if equals:
                found[name] = content
    for value in values_of(settings, "EnvironmentFile"):
        found.update(parse_environment_file(root.text(value.lstrip("-")) or ""))
    return found


def _handed_over(root: Root, settings: Sequence[Setting], exec_start: Optional[str]) -> Optional[str]:
    return None if exec_start is None else policy_script(expand(exec_start, _environment(root, settings))[1:])


def _sets_command(root: Root, path: str) -> bool:
    return any((one.section, one.key) == ("Service", "ExecStart") for one in parse_unit(root.text(path) or ""))


def _last(values: Sequence[str]) -> Optional[str]:
    return values[-1] if values else None


def _process(root: Root) -> Tuple[Optional[bool], Optional[int]]:
    """Return (running, pid)."""
    for cgroup in CGROUPS:
        for word in (root.text(cgroup + "/cgroup.procs") or "").split():
            if word.isdecimal() and root.text("/proc/%s/comm" % word) == "irqbalance":
                return True, int(word)
    numbers = sorted(int(name) for name in root.names("/proc") if name.isdecimal())
    for number in numbers:
        if root.text("/proc/%d/comm" % number) == "irqbalance":
            return True, number
    return (False, None) if numbers else (None, None)


def startable(root: Root) -> bool:
    """Tell whether systemd has a unit of irqbalance that is not masked."""
    unit, masked = _unit_file(root)
    return unit is not None and not masked


def read_irqbalance(root: Root) -> Irqbalance:
    """Return the daemon's state; takes one pass over /proc where its control group does not name the process."""
    unit, masked = _unit_file(root)
    drop_ins = _drop_in_files(root)
    own = [path for path in drop_ins if path.rpartition("/")[2] == OWN_DROP_IN]
    base = [unit] if unit is not None and not masked else []
    settings = _settings(root, base + drop_ins) if base else []
    without = _settings(root, base + [path for path in drop_ins if path not in own]) if base else []
    exec_start = _last(values_of(settings, "ExecStart"))
    exec_start_without_ours = _last(values_of(without, "ExecStart"))
    unit_policy = _handed_over(root, settings, exec_start)
    later = [path for path in drop_ins if path.rpartition("/")[2] > OWN_DROP_IN and _sets_command(root, path)]

    running, pid = _process(root)
    arguments: Tuple[str, ...] = ()
    script = unit_policy
    if pid is not None:
        words = (root.data("/proc/%d/cmdline" % pid) or b"").decode("utf-8", "replace").rstrip("\0").split("\0")
        arguments = tuple(words[1:])
        script = policy_script(arguments)
    return Irqbalance(
        installed=(unit is not None and not masked) or any(root.exists(path) for path in BINARIES),
        running=running,
        pid=pid,
        unit=unit,
        exec_start=exec_start,
        arguments=arguments,
        policy_script=script,
        own_drop_in=bool(own),
        exec_start_without_ours=exec_start_without_ours,
        masked=masked,
        drop_ins=tuple(drop_ins),
        unit_policy=unit_policy,
        unit_policy_without_ours=_handed_over(root, without, exec_start_without_ours),
        later_drop_in=_last(later),
    )
