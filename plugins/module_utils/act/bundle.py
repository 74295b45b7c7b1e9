# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file with everything that a diagnosis read, and nothing that tells whose host it was."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, CardKind, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.scrub import Scrubber, kernel_lines, vocabulary
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import COLLECTION_VERSION, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import (
    MANIFEST,
    MAX_ENTRIES,
    NOT_TAKEN,
    SCHEMA,
    TREE,
    Captured,
    Recorder,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.identity import read_identity
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

ARCHITECTURE = "/proc/sys/kernel/arch"  # in every bundle: kernels have it since 6.1 only
# Worth having for whoever looks at the bundle, and for findings that do not exist yet
EXTRAS = (
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/interrupts",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/uptime",
    "/proc/version",
    "/proc/irq/default_smp_affinity",
    "/proc/irq/*/smp_affinity_list",
    "/proc/irq/*/effective_affinity_list",
    "/sys/kernel/irq/*/actions",
    "/sys/kernel/irq/*/chip_name",
    "/sys/kernel/irq/*/hwirq",
    "/sys/kernel/irq/*/per_cpu_count",
    "/sys/kernel/irq/*/type",
    "/sys/module/pcie_aspm/parameters/policy",
    "/sys/bus/pci/devices/*/current_link_speed",
    "/sys/bus/pci/devices/*/current_link_width",
    "/sys/bus/pci/devices/*/max_link_speed",
    "/sys/bus/pci/devices/*/max_link_width",
    "/sys/bus/pci/devices/*/d3cold_allowed",
    "/sys/bus/pci/devices/*/enable",
    "/sys/bus/pci/devices/*/resource",
    "/sys/bus/pci/devices/*/power/control",
    "/sys/bus/pci/devices/*/power/runtime_status",
    "/sys/class/devfreq/*/governor",
    "/sys/class/devfreq/*/cur_freq",
    "/sys/class/devfreq/*/max_freq",
    "/sys/class/thermal/*/type",
    "/sys/class/thermal/*/temp",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/cpuidle/current_driver",
    "/sys/devices/system/cpu/cpuidle/current_governor",
    "/var/lib/edgenpu-tuning/ledger.json",
)
_MOST_NAMES = 2048  # of one directory
# (file in the bundle, command, what of its output is kept); without a command only what the diagnosis has asked for
_LOGS: Tuple[Tuple[str, Tuple[str, ...], Callable[[str], str]], ...] = (
    ("kernel.txt", ("dmesg",), kernel_lines),
    ("axcl-smi.txt", (), str),
    (
        "edgenpu-tuning.txt",
        ("journalctl", "--unit=edgenpu-tuning*", "--output=short-monotonic", "--no-hostname", "-n500", "--no-pager"),
        str,
    ),
)
_LOG_LIMIT_S = 10.0
_LOG_CHARACTERS = 1 << 20


class Bundle(NamedTuple):
    """A bundle as it is written, and its table of contents."""

    data: bytes
    manifest: Dict[str, Any]


def _read(root: Root, pattern: str) -> None:
    """Read every file that PATTERN names; "*" stands for all names in a directory."""
    before, star, after = pattern.partition("/*/")
    if not star:
        root.data(pattern)
        return
    for name in root.names(before)[:_MOST_NAMES]:
        root.data("%s/%s/%s" % (before, name, after))


def _logs(run: Runner, printed: Dict[str, str]) -> Tuple[Dict[str, bytes], Dict[str, str]]:
    """Return what the logs hold, by file, and what became of each. PRINTED: what was asked for already."""
    contents: Dict[str, bytes] = {}
    fates: Dict[str, str] = {}
    for name, argv, keep in _LOGS:
        if name in printed:
            output = printed[name]
        elif not argv:
            fates[name] = "not asked: no card that is awake and alive, or its driver is not ready"
            continue
        else:
            status, output = run(argv, _LOG_LIMIT_S)
            if status != 0:
                fates[name] = "%s ended with %d: %s" % (argv[0], status, output.strip()[:200])
                continue
        text = keep(output)[-_LOG_CHARACTERS:]
        contents["logs/" + name] = text.encode("utf-8", "replace")
        fates[name] = "%d lines" % text.count("\n")
    return contents, fates


def _inside(path: str, target: str) -> str:
    """Return what the link at PATH says as a relative path that does not lead out of the root."""
    directory = os.path.dirname(path)
    depth = len([part for part in directory.split("/") if part])
    climbing = len([part for part in target.split("/") if part == ".."])
    if not target.startswith("/") and climbing <= depth:
        return target
    return os.path.relpath(os.path.normpath("/" + os.path.join(directory, target).lstrip("/")), directory)


def _scrubbed(captured: Captured, scrubber: Scrubber) -> Captured:
    clean = scrubber.path
    return Captured(
        {clean(path): scrubber.content(path, captured.files[path]) for path in sorted(captured.files)},
        {clean(path) for path in sorted(captured.present - set(captured.files))},
        {clean(path): clean(path, _inside(path, captured.links[path])) for path in sorted(captured.links)},
        {clean(path) for path in sorted(captured.directories)},
        {clean(path) for path in sorted(captured.listed)},
        {clean(path) for path in sorted(captured.missing)},
        {clean(path): code for path, code in sorted(captured.unread.items()) if path not in captured.files},
        {clean(path): captured.modes[path] for path in sorted(captured.modes)},
    )


def _archive(manifest: Dict[str, Any], captured: Captured, others: Dict[str, bytes]) -> bytes:
    """Return a .tar.gz that depends on nothing but what is put into it."""
    document = json.dumps(manifest, indent=1, sort_keys=True).encode("ascii") + b"\n"
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as zipped, tarfile.open(
        fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:

        def add(name: str, kind: bytes, content: bytes = b"", target: str = "", mode: int = 0o644) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.mode = kind, len(content), target, mode
            archive.addfile(member, io.BytesIO(content))

        add(MANIFEST, tarfile.REGTYPE, document)
        for name in sorted(others):
            add(name, tarfile.REGTYPE, others[name])
        for path in sorted(captured.paths):
            if path in captured.links:
                add(TREE + path, tarfile.SYMTYPE, target=captured.links[path])
            elif path in captured.directories:
                add((TREE + path).rstrip("/"), tarfile.DIRTYPE, mode=captured.modes.get(path, 0o755) | 0o700)
            else:
                mode = captured.modes.get(path, 0o444) | 0o400
                add(TREE + path, tarfile.REGTYPE, captured.files.get(path, b""), mode=mode)
    return buffer.getvalue()


def bundle(recorder: Recorder, kinds: Sequence[CardKind], run: Optional[Runner], taken: str) -> Bundle:
    """Return a bundle of what RECORDER has seen, of the extras, and (with RUN) of logs. TAKEN: when, in UTC.

    KINDS: the catalogue of the diagnosis. What could not be read is noted, and is no error.
    """
    for pattern in EXTRAS:
        _read(recorder, pattern)
    captured = recorder.captured
    if len(captured.paths) + len(_LOGS) + 8 > MAX_ENTRIES:
        raise WishError("this host has %d files to note, and a bundle holds %d" % (len(captured.paths), MAX_ENTRIES))
    if recorder.is_live:
        captured.files.setdefault(ARCHITECTURE, os.uname().machine.encode("ascii") + b"\n")
        captured.missing.discard(ARCHITECTURE)
    logs, fates = _logs(run, recorder.printed) if run is not None else ({}, {})
    live = Root(recorder.path)
    # A second reading some moments after the first one: counts tell by their difference where interrupts go now.
    for path in ("/proc/interrupts", "/proc/uptime"):
        again = live.data(path)
        if again is not None:
            logs["later" + path] = again
    words = vocabulary(captured.paths, captured.files)
    scrubber = Scrubber(read_identity(live), words)
    clean = _scrubbed(captured, scrubber)
    others = {name: scrubber.text(data, prose=not name.startswith("later/")) for name, data in sorted(logs.items())}
    own = json.dumps(to_data([kind for kind in kinds if kind not in BUILT_IN]), ensure_ascii=False)
    unread = {path: clean.unread.get(path, NOT_TAKEN) for path in clean.present}
    unread.update(clean.unread)
    manifest: Dict[str, Any] = {
        "schema": SCHEMA,
        "what": "a bundle of edgenpu.tuning: read it with `edgenpu-tuning diagnose --from FILE`",
        "collection": COLLECTION_VERSION,
        "taken": taken,
        "as_root": os.geteuid() == 0,
        "devices": json.loads(scrubber.text(own.encode("utf-8")).decode("utf-8")),
        "listed": sorted(clean.listed),
        # What a listing tells need not be said again, but that a process had ended when its directory was read must.
        "missing": sorted(
            path for path in clean.missing if os.path.dirname(path) not in clean.listed or path in clean.directories
        ),
        "unread": unread,
        "logs": {name: scrubber.text(fate.encode("utf-8")).decode("utf-8") for name, fate in fates.items()},
        "scrubbed": dict(scrubber.counts),
    }
    return Bundle(_archive(manifest, clean, others), manifest)


def write_new(path: str, data: bytes, owner: Optional[Tuple[int, int]] = None) -> None:
    """Write DATA to a file that must not exist yet, for nobody but its OWNER (user and group) to read.

    The name is taken first and the content comes in one step; what fails leaves nothing behind.
    """
    scratch = path + ".new"
    made: List[str] = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        for name in (path, scratch):
            with open(os.open(name, flags, 0o600), "wb") as stream:
                made.append(name)
                if name == scratch:
                    stream.write(data)
                    stream.flush()
                    if owner is not None:
                        os.fchown(stream.fileno(), *owner)
                    os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException as error:
        for name in made:
            os.unlink(name)
        if isinstance(error, FileExistsError):
            raise WishError(
                "%s is there already, and a bundle overwrites nothing; choose another name" % error.filename
            ) from error
        raise
