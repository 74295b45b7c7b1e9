# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installing the AXCL driver, keeping it built for every kernel, and taking it away again.

What is left to do follows from what is seen, round by round, so a run that was killed at any point is simply repeated.
Steps may take minutes; the writers' lock is held only while files and the ledger are written, since the agent, which
the driver's own loading starts, waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import follow_up, put_files, show
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.repository import refresh, try_repository
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import ABSENT, FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import (
    SLEEP_TARGETS,
    UNIT,
    UNIT_NAME,
    WORKS,
    DriverWishes,
    Offer,
    Plan,
    Step,
    all_of,
    dkms_text,
    drivers_of,
    failure,
    files,
    first_error,
    gave_up,
    is_installed,
    is_older,
    limit_s,
    no_way_back,
    nodes_step,
    plan_absent,
    plan_present,
    proof,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import (
    host_pin,
    prefix_of,
    repository_texts,
    update_problem,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import LISTS, OUR_FILES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import MODULES as ALL_MODULES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    OLD_MODULES,
    Event,
    Table,
    driver_problem,
    find_tool,
    parse_kernel_log,
    placed,
    read_driver,
    read_table,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    DKMS_TREES,
    FAILED_LOG,
    INSTALL_LOG,
    MODULES,
    NO_RECORD,
    PACKAGES,
    RECORD,
    RECORD_SCHEMA,
    SANDBOX,
    SANDBOX_TEXT,
    SOURCE_TREE,
    DriverState,
    Record,
    parse_record,
    read_driver_state,
    read_holders,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import (
    parse_control,
    parse_deb,
    sdk_version,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran, Runner

ROLE = "axcl_driver"
LOCK_PATH = "/run/edgenpu-tuning-driver.lock"  # one run of this at a time; not the writers' lock, which is for moments
DPKG_INFO = "/var/lib/dpkg/info"
ARCHIVES = "/var/cache/apt/archives"  # what apt has fetched
MAX_ROUNDS = 7

APT_S, PURGE_S, BUILD_S, UNLOAD_S, SHORT_S = 900.0, 300.0, 3600.0, 180.0, 60.0
INSTALL_S = 1800.0  # besides what loading may take: a slow core compiles for minutes
_ENVIRONMENT = ("env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
_APT_INSTALL = (
    *("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends"),
    *("--allow-downgrades", "--allow-change-held-packages"),
)
_TOOK_TOO_LONG = (124, 137)  # of timeout(1)
_BY_PRODUCTS = shutil.ignore_patterns(
    "out", ".tmp_versions", "*.o", "*.ko", "*.mod", "*.mod.c", ".*.cmd", "*.symvers", "*.order"
)


class Failed(Exception):
    """A step that did not go, in one sentence: what, where, what to do."""


class Done(NamedTuple):
    """What was done (or would be); what did not go and why; why nothing was done; what to know; the host after it."""

    changes: List[Change]
    files: List[Tuple[str, FileState, FileState]]
    refused: List[Change]
    obstacles: List[str]
    warnings: List[str]
    unknown: List[str]
    state: DriverState


@contextlib.contextmanager
def _book(sink: Sink, check: bool = False) -> Iterator[Ledger]:
    """Hold the writers' lock, with the ledger as it is now."""
    with contextlib.nullcontext() if check else Locked(sink):
        yield Ledger(sink)


def look_at_deb(
    root: Root, path: str, file_name: str, sha256: Optional[str], version: Optional[str], runner: Runner
) -> Offer:
    """Return what the .deb at PATH offers. SHA256: what it must be, None where the user has waived that."""
    data = root.data(path)
    blank = Offer(sha256=sha256 or "", path=path, file_name=file_name)
    if data is None:
        return blank._replace(problem="cannot be read")
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and sha256 != found:
        return blank._replace(problem="its sha256 is %s and not %s (%d bytes)" % (found, sha256, len(data)))
    deb = parse_deb(data)
    control = deb.control
    if deb.problem is None and control is None:
        ran = runner(["dpkg-deb", "--field", path], SHORT_S)
        if ran.status != 0:
            return blank._replace(problem="dpkg-deb cannot read it (%s)" % (first_error(ran.output) or ran.status))
        control = parse_control(ran.output)
    if control is None:
        return blank._replace(problem=deb.problem)
    size = control.get("Installed-Size", "")
    return Offer(
        found,
        path,
        file_name,
        control.get("Package"),
        control.get("Version"),
        control.get("Architecture"),
        ", ".join(control.get(name, "") for name in ("Pre-Depends", "Depends")),
        int(size) >> 10 if size.isdigit() else None,
        version or sdk_version(file_name, control.get("Version")),
        provides=control.get("Provides", ""),
    )


def look_at_debs(
    root: Root,
    paths: Sequence[str],
    names: Sequence[str],
    sums: Sequence[Optional[str]],
    version: Optional[str],
    runner: Runner,
) -> Offer:
    """Return what the .deb files at PATHS offer together: one driver."""
    parts = [look_at_deb(root, *one, version, runner) for one in zip(paths, names, sums)]
    return parts[0] if len(parts) == 1 else all_of(parts)


def cached(sha256: str, part: Optional[str] = None) -> str:
    """Return where the .deb with this checksum is kept once it is installed.

    Of a driver in several files it is the checksum of all; PART is the file's own then.
    """
    return "%s/%s.deb" % (PACKAGES, sha256 if part is None else "%s.%s" % (sha256, part))


class _Doer:
    """Performs steps on one host."""

    def __init__(
        self, sink: Sink, runner: Runner, offer: Optional[Offer], wishes: DriverWishes, way_back: bool = True
    ) -> None:
        self.sink = sink
        self.runner = runner
        self.offer = offer
        self.wishes = wishes
        self.way_back = way_back
        self.refused: List[Change] = []
        self.in_vain = 0  # steps that did not go, and only a warning tells of it
        self.written: List[Tuple[str, FileState, FileState]] = []
        self.version = None if offer is None else offer.version  # or that which the repository turns out to have
        self.previous = ""  # what was installed before and apt has fetched again, as it takes it
        self.replaced = NO_RECORD  # our record of that
        self._do: Dict[str, Callable[[Step], None]] = {
            "repository": self._repository,
            "unlist": self._unlist,
            "save": self._save,
            "fetch": self._fetch,
            "tools": self._tools,
            "unload": self._unload,
            "hold": self._hold,
            "unhold": self._hold,
            "purge": self._purge,
            "install": self._install,
            "sandbox": self._sandbox,
            "tree": self._tree,
            "untree": self._untree,
            "build": self._build,
            "drop": self._drop,
            "remove": self._remove,
            "group": self._group,
            "ungroup": self._ungroup,
            "load": self._load,
            "nodes": self._nodes,
        }

    def perform(self, step: Step) -> bool:
        """Do one step; return False if it was refused and the rest can go on. Raises Failed if it cannot."""
        before = len(self.refused) + self.in_vain
        self._do[step.kind](step)
        return len(self.refused) + self.in_vain == before

    def run(self, argv: Sequence[str], timeout_s: float, what: str) -> Ran:
        """Run a command that must succeed; WHAT it is for, as the sentence's beginning ("installing x")."""
        ran = self.runner([*_ENVIRONMENT, *argv], timeout_s)
        if ran.status in _TOOK_TOO_LONG:
            raise Failed("%s took longer than %d s%s" % (what, timeout_s, self._kernel_says()))
        if ran.status != 0:
            raise Failed("%s failed: %s" % (what, first_error(ran.output) or "exit status %d" % ran.status))
        return ran

    def _kernel_says(self) -> str:
        events = [event for event in kernel_events(self.runner) if event.severity == "critical"]
        return "; the kernel says: " + events[-1].line if events else ""

    def _record(self, **more: Any) -> None:
        """Change our record of what is installed."""
        record = parse_record(self.sink.root.text(RECORD))._replace(**more)
        self.sink.put(RECORD, ABSENT if record == NO_RECORD else _record_state(record))

    def _repository(self, step: Step) -> None:
        offer = self.offer
        repository = None if offer is None else offer.repository
        if offer is None or repository is None:
            raise Failed("there is no repository to set up; give one")
        state = read_driver_state(self.sink.root)
        architecture = str(state.architecture)
        tried = try_repository(self.sink, repository, architecture, str(offer.package), offer.version, self.runner)
        self.version = tried.version
        texts = repository_texts(repository, architecture, tried.pin)
        lists = prefix_of(repository)
        had = _lists(self.sink.root, lists)
        self._record(pin=tried.pin, lists=lists)
        wanted = {path: (ROLE, FileState(texts[path].encode("utf-8"))) for path in OUR_FILES}
        put = self._put(wanted)
        ran = refresh(self.runner)
        problem = update_problem(repository, ran.status, ran.output)
        if problem is not None:
            self._put({path: (ROLE, before) for path, before, _after in put})
            for path in set(_lists(self.sink.root, lists)).difference(had):
                self.sink.put(path, ABSENT)
            self._record(pin=state.record.pin, lists=state.record.lists)
            raise Failed(problem)
        self.written += put

    def _put(self, wanted: Dict[str, Tuple[str, FileState]]) -> List[Tuple[str, FileState, FileState]]:
        with _book(self.sink) as ledger:
            put = put_files(self.sink, ledger, wanted, ROLE, False)
            self.refused += follow_up(self.sink, ledger, self.runner)
            return put

    def _unlist(self, step: Step) -> None:
        with _book(self.sink) as ledger:
            wanted = _originals(ledger, OUR_FILES)
        self.written += self._put(wanted)
        for path in _lists(self.sink.root, step.target):
            self.sink.put(path, ABSENT)
        self._record(pin=None, lists=None)

    def _save(self, step: Step) -> None:
        """Let apt fetch the driver that is there, of which we have no file; refuse if it works and cannot be had."""
        names = step.target.split()
        # Asked for what it has no source of, `install --reinstall` says so and ends with 0; `download` fails.
        ran = self.runner([*_ENVIRONMENT, "apt-get", "--print-uris", "download", *names], SHORT_S)
        if ran.status == 0:
            ran = self.runner([*_ENVIRONMENT, *_APT_INSTALL, "--download-only", "--reinstall", *names], APT_S)
        if ran.status == 0:
            self.previous, self.replaced = step.target, read_driver_state(self.sink.root).record
        elif step.before == WORKS:
            raise Failed(no_way_back(step.target, first_error(ran.output)))

    def _fetch(self, step: Step) -> None:
        """Get what apt will install while the driver that is there still works."""
        self.run([*_APT_INSTALL, "--download-only", self._wanted()], APT_S, "fetching %s" % self._wanted())

    def _wanted(self) -> str:
        name = "" if self.offer is None else str(self.offer.package)
        return "%s=%s" % (name, self.version) if self.version else name

    def _tools(self, step: Step) -> None:
        install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends"]
        names = step.target.split()
        # Before anything is changed: all of it can be had, or nothing is installed.
        simulated = [*_ENVIRONMENT, *install, "--simulate", *names]
        if self.runner(simulated, SHORT_S).status != 0:
            self.runner([*_ENVIRONMENT, "apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], APT_S)
            ran = self.runner(simulated, SHORT_S)
            if ran.status != 0:
                raise Failed(
                    "%s must be installed and apt-get cannot: %s; install it by hand, or give apt a source that has it"
                    % (step.target, first_error(ran.output))
                )
        self.run([*install, *names], APT_S, "installing %s" % step.target)

    def _unload(self, step: Step) -> None:
        for module in step.target.split():
            self.run(["modprobe", "-r", module], UNLOAD_S, "unloading %s" % module)

    def _hold(self, step: Step) -> None:
        if step.kind == "hold":
            self._record(held=True)
        self.run(["apt-mark", step.kind, *step.target.split()], SHORT_S, "apt-mark %s" % step.kind)
        if step.kind == "unhold":
            self._record(held=False)

    def _purge(self, step: Step) -> None:
        self._return_files(step.target.split())
        argv = ["dpkg", "--force-remove-reinstreq", "--purge", *step.target.split()]
        self.run(argv, PURGE_S, "removing %s" % step.target)

    def _return_files(self, names: Sequence[str]) -> None:
        """Put back files of packages that stood where ours do: they go with them, and nothing brings them back later.

        Before the removal, since afterwards nobody knows whose they were.
        """
        owned: Set[str] = set()
        for entry in self.sink.root.names(DPKG_INFO):
            name, _dot, ending = entry.rpartition(".")
            if ending in ("list", "conffiles") and name.partition(":")[0] in names:
                owned.update((self.sink.root.text("%s/%s" % (DPKG_INFO, entry)) or "").splitlines())
        owned.discard(SANDBOX)  # recorded before any package was there
        with _book(self.sink) as ledger:
            for kept in ledger.entries(ROLE, "file"):
                if kept.id in owned:
                    self.sink.put(kept.id, kept.state or ABSENT)
                    ledger.forget(kept)
            ledger.save()

    def _as_looked_at(self, part: Offer) -> bytes:
        """Return the package's bytes, if they are still those whose checksum was compared."""
        data = self.sink.root.data(part.path or "")
        if data is None or hashlib.sha256(data).hexdigest() != part.sha256:
            raise Failed("%s is not the file any more that was looked at; put it there again and repeat" % part.path)
        return data

    def _install(self, step: Step) -> None:
        offer = self.offer
        if offer is None:
            raise Failed("there is no source to install the driver from; give one")
        if self.sink.root.text(SANDBOX) != SANDBOX_TEXT:
            with _book(self.sink) as ledger:
                ledger.remember_file(ROLE, SANDBOX)
                ledger.save()
        limit = INSTALL_S + limit_s(read_driver_state(self.sink.root), self.wishes)
        record = Record(offer.sha256, offer.package, offer.sdk, None, None, False)
        if offer.sha256 is None:
            self._record(sha256=None, package=offer.package, sdk=offer.sdk)
            argv = [*_APT_INSTALL, self._wanted()]
        else:
            paths = []
            for part in offer.parts or (offer,):
                paths.append(cached(offer.sha256, part.sha256 if offer.parts else None))
                if part.path != paths[-1]:
                    self.sink.put(paths[-1], FileState(self._as_looked_at(part), None, 0o644))
            self.sink.put(cached(offer.sha256) + ".json", _record_state(record))
            self._record(sha256=offer.sha256, package=offer.package, sdk=offer.sdk, failed=None)
            # All at once: dpkg unpacks all of them before it configures any.
            argv = ["dpkg", "--force-confnew", "--install", *paths]
        self.sink.put(INSTALL_LOG, ABSENT)  # so that the log, if there is one then, is that of this attempt
        try:
            self.run(argv, limit, "installing %s" % step.target)
        except Failed as error:
            log = self.sink.root.data(INSTALL_LOG)
            if not log:
                raise
            # Kept under another name: what is done next may install another package, and that writes its own.
            self.sink.put(FAILED_LOG, FileState(log))
            told = first_error(log.decode("utf-8", "replace"))
            raise Failed("%s (first error: %s; whole log: %s)" % (error, told, FAILED_LOG)) from error
        if self.way_back:  # or this is the way back, and the log tells why
            self.sink.put(FAILED_LOG, ABSENT)

    def _sandbox(self, step: Step) -> None:
        with _book(self.sink) as ledger:
            kept = [entry.state for entry in ledger.entries(ROLE, "file") if entry.id == SANDBOX]
            after = FileState(step.after.encode("utf-8") + b"\n") if step.after is not None else ABSENT
            self.sink.put(SANDBOX, (kept[0] or ABSENT) if kept else after)

    def _tree(self, step: Step) -> None:
        name, _slash, version = step.target.partition("/")
        target = "/usr/src/%s-%s" % (name, version)
        scratch = target + ".new"
        for path in (scratch, target):
            self.sink.remove_tree(path)
        shutil.copytree(
            self.sink.host_path(SOURCE_TREE), self.sink.host_path(scratch), symlinks=True, ignore=_BY_PRODUCTS
        )
        architecture = read_driver_state(self.sink.root).architecture
        self.sink.put(scratch + "/dkms.conf", FileState(dkms_text(version, architecture).encode("ascii")))
        os.rename(self.sink.host_path(scratch), self.sink.host_path(target))
        self.run(["dkms", "add", step.target], SHORT_S, "registering %s with DKMS" % step.target)

    def _untree(self, step: Step) -> None:
        name, _slash, version = step.target.partition("/")
        # DKMS refuses to remove what has lost its source; what it leaves is removed all the same.
        self.runner(["dkms", "remove", step.target, "--all"], PURGE_S)
        self.sink.remove_tree("%s/%s" % (DKMS_TREES, step.target))
        for entry in self.sink.root.names("%s/%s" % (DKMS_TREES, name)):
            path = "%s/%s/%s" % (DKMS_TREES, name, entry)
            if entry.startswith("kernel-") and not self.sink.root.exists(path):
                self.sink.put(path, ABSENT)
        self.sink.remove_if_empty("%s/%s" % (DKMS_TREES, name))
        self.sink.remove_tree("/usr/src/%s-%s" % (name, version))

    def _build(self, step: Step) -> None:
        argv = ["dkms", "install", "--force", str(step.after), "-k", step.target]
        ran = self.runner([*_ENVIRONMENT, *argv], BUILD_S)
        if ran.status == 0:
            return
        log = "%s/%s/build/make.log" % (DKMS_TREES, step.after)
        text = self.sink.root.text(log)
        why = "took longer than %d s" % BUILD_S if ran.status in _TOOK_TOO_LONG else first_error(text or ran.output)
        where = "" if text is None else "; whole log: " + log
        state = read_driver_state(self.sink.root)
        if is_older(state, step.target):  # told by a warning; another driver will be tried again
            releases = sorted({*gave_up(state, str(step.after)), step.target})
            self._record(unbuilt="; ".join(failure(step.after, release) for release in releases))
            self.in_vain += 1
            return
        sentence = "the driver does not build for kernel %s: %s%s" % (step.target, why, where)
        self.refused.append(Change(step.target, step.before, step.after, sentence))

    def _drop(self, step: Step) -> None:
        paths = step.target.split()
        for path in paths:
            self.sink.put(path, ABSENT)
        for directory in {os.path.dirname(path) for path in paths}:
            self.sink.remove_if_empty(directory)
        release = paths[0].split("/")[3]
        self.run(["depmod", release], PURGE_S, "depmod %s" % release)

    def _remove(self, step: Step) -> None:
        if os.path.isdir(self.sink.host_path(step.target)):
            self.sink.remove_tree(step.target)
        else:
            self.sink.put(step.target, ABSENT)

    def _group(self, step: Step) -> None:
        self._record(group=step.target)
        self.run(["groupadd", "--system", step.target], SHORT_S, "making the group %s" % step.target)

    def _ungroup(self, step: Step) -> None:
        self.run(["groupdel", step.target], SHORT_S, "removing the group %s" % step.target)

    def _load(self, step: Step) -> None:
        limit = limit_s(read_driver_state(self.sink.root), self.wishes) + SHORT_S
        ran = self.runner(["systemctl", "restart", UNIT_NAME], limit)
        if ran.status == 0:
            self.runner(["udevadm", "settle", "--timeout=30"], SHORT_S)
            return
        why = "took longer than %d s" % limit if ran.status in _TOOK_TOO_LONG else first_error(ran.output)
        sentence = "loading the driver: %s%s; see journalctl -u %s" % (why, self._kernel_says(), UNIT_NAME)
        self.refused.append(Change(UNIT_NAME, step.before, step.after, sentence))

    def _nodes(self, step: Step) -> None:
        matches = ["--name-match=" + path for path in step.target.split()]
        self.runner(["udevadm", "trigger", "--action=change", *matches], SHORT_S)
        self.runner(["udevadm", "settle", "--timeout=30"], SHORT_S)
        wrong = nodes_step(read_driver_state(self.sink.root), self.wishes)
        if wrong:
            sentence = "udev leaves %s as %s; see udevadm test for another rule that wins" % wrong[0][1:3]
            self.refused.append(Change(wrong[0].target, wrong[0].before, wrong[0].after, sentence))


def _record_state(record: Record) -> FileState:
    text = json.dumps(dict(record._asdict(), schema=RECORD_SCHEMA), indent=1, sort_keys=True) + "\n"
    return FileState(text.encode("ascii"), None, 0o644)


def kernel_events(runner: Runner) -> Tuple[Event, ...]:
    """Return what the kernel log tells of card and driver; () if it cannot be read."""
    ran = runner(["dmesg"], SHORT_S)
    return parse_kernel_log(ran.output) if ran.status == 0 else ()


def _original_sandbox(ledger: Ledger) -> Optional[str]:
    for entry in ledger.entries(ROLE, "file"):
        if entry.id == SANDBOX and entry.state is not None and entry.state.content is not None:
            return entry.state.content.decode("utf-8", "replace").strip()
    return None


def _originals(ledger: Ledger, paths: Sequence[str]) -> Dict[str, Tuple[str, FileState]]:
    """Return what stood at PATHS before us, as far as anything of ours has stood there."""
    kept = (entry for entry in ledger.entries(ROLE, "file") if entry.id in paths)
    return {entry.id: (ROLE, entry.state or ABSENT) for entry in kept}


def _lists(root: Root, prefix: Optional[str]) -> List[str]:
    """Return the files that apt keeps of our repository."""
    names = root.names(LISTS) if prefix else []
    return ["%s/%s" % (LISTS, name) for name in names if name.startswith(str(prefix))]


def _wanted_files(state: DriverState, wishes: DriverWishes, ledger: Ledger) -> Dict[str, Tuple[str, FileState]]:
    texts, links = files(state, wishes)
    wanted = {path: (ROLE, FileState(text.encode("utf-8"))) for path, text in texts.items()}
    wanted.update((path, (ROLE, FileState(None, target, 0o777))) for path, target in links.items())
    given_back = _originals(ledger, [path for path in SLEEP_TARGETS if path not in wanted])
    return {**wanted, **given_back}


def _as_change(step: Step) -> Change:
    return Change("%s: %s" % (step.kind, step.target), step.before, step.after, step.why)


def _put_files(
    sink: Sink, runner: Runner, state: DriverState, wishes: DriverWishes, check: bool
) -> Tuple[List[Tuple[str, FileState, FileState]], List[Change]]:
    """Make our files what they should be; return those that were not, and what could not be told of them."""
    with _book(sink, check) as ledger:
        written = put_files(sink, ledger, _wanted_files(state, wishes, ledger), ROLE, check)
        return written, [] if check else follow_up(sink, ledger, runner)


def make_present(
    sink: Sink, offer: Optional[Offer], wishes: DriverWishes, runner: Runner, check: bool = False, way_back: bool = True
) -> Done:
    """Make the host have what OFFER has, built for every kernel, loaded, and without what the package spoils.

    WAY_BACK: put the package back that was there if the new one cannot be installed. Raises Failed with a sentence.
    """
    root = sink.root
    doer = _Doer(sink, runner, offer, wishes, way_back)
    changes: List[Change] = []
    written: List[Tuple[str, FileState, FileState]] = []
    tried: Set[Tuple[str, str]] = set()
    plan = Plan([], [], [], [], [])
    state = read_driver_state(root)
    for _round in range(MAX_ROUNDS):
        state = read_driver_state(root)
        holders = read_holders(root) if state.loaded and not is_installed(state, offer) else ()
        with _book(sink, check) as ledger:
            original = _original_sandbox(ledger)
        plan = plan_present(state, offer, wishes, holders, original)
        if plan.obstacles:
            break
        if check:
            steps = [_as_change(step) for step in plan.steps + plan.later]
            files_to_be, _refused = _put_files(sink, runner, state, wishes, True)
            apt = _apt_files(sink, state, offer, steps)
            shown = [
                Change(path, show(before), show(after), "the driver's surroundings")
                for path, before, after in files_to_be
            ]
            return Done(steps + shown, apt + files_to_be, [], [], plan.warnings, plan.unknown, state)
        todo = [step for step in plan.steps if (step.kind, step.target) not in tried]
        early = [step for step in todo if step.kind not in ("load", "nodes")]
        tools = [step for step in plan.steps if step.kind == "tools"]
        if tools and tools[0] not in todo:
            raise Failed(
                "apt-get says that it has installed %s, and that is still not there for kernel %s; install it by hand, "
                "or name the headers' package with headers_package" % (tools[0].target, state.kernel)
            )
        for step in early[: early.index(tools[0]) + 1] if tools else early:
            _perform(doer, step, changes, tried)
        if tools:
            continue  # what is there now is judged anew, before the driver is touched: the compiler may be a wrong one
        if not is_installed(state, offer):
            continue
        put, refused = _put_files(sink, runner, state, wishes, False)
        written += put
        changes += [Change(path, show(before), show(after), "the driver's surroundings") for path, before, after in put]
        doer.refused += refused
        for step in todo:
            if step not in early:
                _perform(doer, step, changes, tried)
        if not todo and not put:
            break
    if not check and not plan.obstacles and not is_installed(state, offer):
        raise Failed("dpkg says that all went well, but the driver's package is not installed; see /var/log/dpkg.log")
    if not check and offer is not None and not plan.obstacles:
        _forget_packages(sink, state.record.sha256)
    written = doer.written + written
    return Done(changes, written, doer.refused, plan.obstacles, plan.warnings, [], state)


def _apt_files(
    sink: Sink, state: DriverState, offer: Optional[Offer], steps: Sequence[Change]
) -> List[Tuple[str, FileState, FileState]]:
    """Return how our files of apt's would differ if STEPS were done, as far as can be told before that."""
    kinds = [step.path.partition(":")[0] for step in steps]
    with _book(sink, True) as ledger:
        wanted = _originals(ledger, OUR_FILES) if "unlist" in kinds else {}
    if "repository" in kinds and offer is not None and offer.repository is not None:
        pin = host_pin(offer.repository, state.apt.others)
        texts = repository_texts(offer.repository, str(state.architecture), pin)
        wanted = {path: (ROLE, FileState(text.encode("utf-8"))) for path, text in texts.items()}
    with _book(sink, True) as ledger:
        return put_files(sink, ledger, wanted, ROLE, True)


def _perform(doer: _Doer, step: Step, changes: List[Change], tried: Set[Tuple[str, str]]) -> None:
    tried.add((step.kind, step.target))
    try:
        if doer.perform(step):
            changes.append(_as_change(step))
    except Failed as error:
        if step.kind == "install" and doer.way_back and "took longer than" not in str(error):
            try:
                told = _go_back(doer)
            except Failed as again:
                told = "putting back what was there failed: %s" % again
            raise Failed("%s; %s" % (error, told)) from error
        if step.kind in ("unload", "unhold", "untree", "purge") and doer.way_back:
            try:
                told = _stay(doer, step)
            except Failed as again:
                told = "putting back what was taken away before that failed: %s" % again
            raise Failed("%s; %s" % (error, told)) from error
        raise


def _forget_packages(sink: Sink, keep: Optional[str]) -> None:
    """Remove the files of packages that are not installed any more. KEEP: checksum of that which is, if from a file."""
    for name in sink.root.names(PACKAGES):
        if keep is None or not name.startswith(keep):
            sink.put("%s/%s" % (PACKAGES, name), ABSENT)


def _stay(doer: _Doer, step: Step) -> str:
    """Make the driver whole again that could not be taken away: STEP failed. Tell how that went."""
    if step.kind == "unload":  # nothing else has been taken yet
        load(doer.sink, doer.runner, doer.wishes)
        return "the modules that were unloaded before are loaded again"
    packages = drivers_of(read_driver_state(doer.sink.root))
    if packages and all(package.sound for package in packages):
        done = make_present(doer.sink, None, doer.wishes, doer.runner, way_back=False)
        troubles = done.obstacles + [change.why for change in done.refused]
        return "the driver that is there " + ("is not whole again: " + "; ".join(troubles) if troubles else "was kept")
    failed = None if doer.offer is None else doer.offer.sha256
    told = _put_back(doer, failed, _kept_packages(doer.sink.root, failed))
    return told or "there is no copy of it to install again; mend it (dpkg --configure -a) and run this again"


def _kept_packages(root: Root, failed: Optional[str]) -> List[str]:
    """Return the names of the files in our cache other than those of the package that FAILED."""
    return [name for name in root.names(PACKAGES) if name.endswith(".deb") and name.partition(".")[0] != failed]


def _go_back(doer: _Doer) -> str:
    """Take what could not be installed away again, and put back what was there before; tell how that went."""
    sink, runner, offer = doer.sink, doer.runner, doer.offer
    failed = None if offer is None else offer.sha256
    kept = _kept_packages(sink.root, failed)
    if offer is not None and offer.package is not None:
        argv = ["dpkg", "--force-remove-reinstreq", "--purge", *offer.packages]
        if runner(argv, PURGE_S).status != 0:
            return "what is there of it could not be removed either: %s" % " ".join(argv)
    for name in sink.root.names(PACKAGES):
        if failed is not None and name.startswith(failed):
            sink.put("%s/%s" % (PACKAGES, name), ABSENT)
    told = _put_back(doer, failed, kept)
    if told is not None:
        return told
    state = read_driver_state(sink.root)
    for step in plan_absent(state, (), _leavings(sink.root, state)).steps:
        if step.target not in (FAILED_LOG, RECORD):  # the log is what the user looks into now
            doer.perform(step)
    doer._record(sha256=None, package=None, sdk=None, pin=None, lists=None, unbuilt=None)
    with _book(sink) as ledger:
        undo(sink, ledger, ROLE, runner, False)
    sink.remove_if_empty(os.path.dirname(RECORD))
    return "nothing of it is left on the host"


def _put_back(doer: _Doer, failed: Optional[str], kept: Sequence[str]) -> Optional[str]:
    """Put back what was there before, and tell how that went; None if there is nothing. KEPT: files in our cache."""
    sink, runner = doer.sink, doer.runner
    if doer.previous:
        return _apt_goes_back(doer, failed)
    previous = sorted({name.partition(".")[0] for name in kept})
    if not previous:
        return None
    doer._record(sha256=None, package=None, sdk=None)
    record = parse_record(sink.root.text(cached(previous[0]) + ".json"))
    names = [name for name in kept if name.startswith(previous[0])]
    paths = ["%s/%s" % (PACKAGES, name) for name in names]
    sums = [name.split(".")[-2] for name in names]
    back = look_at_debs(sink.root, paths, [""] * len(names), sums, record.sdk, runner)
    try:
        make_present(sink, back, doer.wishes, runner, way_back=False)
    except Failed as error:
        return "the package that was there before could not be put back: %s" % error
    if sink.root.exists(FAILED_LOG):
        doer._record(failed=failure(failed, read_driver_state(sink.root).kernel))
    return "the package that was there before is back"


def _fetched(root: Root, names: Sequence[str]) -> List[str]:
    """Return the files in which apt keeps packages, each given as NAME=VERSION; [] if it has not got all of them."""
    kept = root.names(ARCHIVES)
    found = []
    for name in names:
        beginning = name.replace(":", "%3a").replace("=", "_") + "_"
        found += ["%s/%s" % (ARCHIVES, one) for one in kept if one.startswith(beginning) and one.endswith(".deb")][:1]
    return found if len(found) == len(names) else []


def _apt_goes_back(doer: _Doer, failed: Optional[str]) -> str:
    """Put back what apt has fetched for that; tell how that went. FAILED: checksum of the file that was to be there."""
    names = doer.previous.split()
    limit = INSTALL_S + limit_s(read_driver_state(doer.sink.root), doer.wishes)
    doer._record(sha256=None, package=" ".join(name.partition("=")[0] for name in names), sdk=doer.replaced.sdk)
    ran = doer.runner([*_ENVIRONMENT, *_APT_INSTALL, *names], limit)
    files_of = _fetched(doer.sink.root, names) if ran.status != 0 else []
    if files_of:  # apt may not know it any more, since its source went with the change
        ran = doer.runner([*_ENVIRONMENT, "dpkg", "--force-confnew", "--install", *files_of], limit)
    if ran.status != 0:
        return "apt could not put %s back: %s" % (doer.previous, first_error(ran.output) or ran.status)
    make_present(doer.sink, None, doer.wishes, doer.runner, way_back=False)
    if failed is not None and doer.sink.root.exists(FAILED_LOG):
        doer._record(failed=failure(failed, read_driver_state(doer.sink.root).kernel))
    return "%s, which was there before, is back" % doer.previous


def make_absent(sink: Sink, runner: Runner, check: bool = False) -> Done:
    """Take away the driver and all that it, its package and we have left. Raises Failed with a sentence."""
    root = sink.root
    doer = _Doer(sink, runner, None, DriverWishes())
    changes: List[Change] = []
    state = read_driver_state(root)
    plan = plan_absent(state, read_holders(root) if state.loaded else (), _leavings(root, state))
    if plan.obstacles:
        return Done([], [], [], plan.obstacles, [], [], state)
    if not check and state.packages and state.record == NO_RECORD:
        doer._record(package=sorted(state.packages)[0])  # so that a run which is killed now is made up for
    if not check and root.exists(UNIT):
        runner(["systemctl", "stop", UNIT_NAME], SHORT_S)
    with _book(sink, check) as ledger:
        given_back = undo(sink, ledger, ROLE, runner, check)
    changes += given_back.changes
    if check:
        return Done(changes + [_as_change(step) for step in plan.steps], given_back.files, [], [], [], [], state)
    for _round in range(MAX_ROUNDS):
        state = read_driver_state(root)
        steps = plan_absent(state, (), _leavings(root, state)).steps
        for step in steps:
            doer.perform(step)
            changes.append(_as_change(step))
        if not steps:
            break
    sink.remove_if_empty(os.path.dirname(RECORD))
    return Done(changes, given_back.files, given_back.refused + doer.refused, [], [], [], state)


def _leavings(root: Root, state: DriverState) -> List[str]:
    """Return what no package removes; our record goes last, since it says what else is ours."""
    lists = _lists(root, state.record.lists)
    paths = [*([] if state.packages else [SOURCE_TREE]), INSTALL_LOG, FAILED_LOG, PACKAGES, *lists]
    found = [path for path in paths if root.exists(path)]
    rest = plan_absent(state, (), found).steps
    return found if rest or not root.exists(RECORD) else [RECORD]


def prove(root: Root, wishes: DriverWishes, runner: Runner) -> List[Finding]:
    """Return what shows that driver and cards work, or do not."""
    state = read_driver_state(root)
    tool = find_tool(root)
    table: Optional[Table] = None
    if tool is not None and driver_problem(state.driver) is None:
        table = placed(read_table(runner, tool), [card.bdf for card in state.cards])
    return proof(state, wishes, table, kernel_events(runner))


def unload(sink: Sink, runner: Runner) -> None:
    """Unload the driver's modules in the vendor's order, last loaded first. Raises Failed with a sentence."""
    loaded = {module.name for module in read_driver(sink.root).modules}
    names = [module for module in reversed((*ALL_MODULES, *OLD_MODULES)) if module in loaded]
    _Doer(sink, runner, None, DriverWishes()).perform(Step("unload", " ".join(names), "loaded", None, ""))


def load(sink: Sink, runner: Runner, wishes: DriverWishes) -> None:
    """Load the driver's modules in order, by their unit where there is one. Raises Failed with a sentence."""
    doer = _Doer(sink, runner, None, wishes)
    if sink.root.exists(UNIT):
        if not doer.perform(Step("load", UNIT_NAME, None, "loaded", "")):
            raise Failed(doer.refused[-1].why)
        return
    limit = limit_s(read_driver_state(sink.root), wishes) + SHORT_S
    for module in MODULES:
        doer.run(["modprobe", module], limit, "loading %s" % module)
    runner(["udevadm", "settle", "--timeout=30"], SHORT_S)
