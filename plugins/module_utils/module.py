# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share: their way into the three layers and the shape of their results."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import LOCK_PATH, Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import Kept, keep, show
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, NotAFile, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import Undone, undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.obstacles import no_keeper, obstacle
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host, read_host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

# What lies there is somebody's own, or gone after a boot.
_PASSING = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev/shm")
# Debian's python3-minimal lacks some of what the agent imports: json, among others.
_WILL_DO = "import fcntl, hashlib, json, py_compile, shlex, subprocess, sys, zlib; sys.exit(sys.version_info < (3, 8))"


def writable_host(module: AnsibleModule, root: Root) -> Host:
    """Return the host, or end the module with one sentence if it cannot be tuned. Check mode may be run by anyone."""
    host = read_host(root)
    trouble = obstacle(host, os.uname().sysname, 0 if module.check_mode else os.geteuid())
    keeps = module.params["state"] == "present" and module.params.get("persist", True)
    if trouble is None and keeps:
        trouble = no_keeper(host)
        if trouble is not None and "persist" in module.params:
            trouble += "; use persist: false to set this boot's values only"
        if trouble is None and not module.params["front_door"]:
            trouble = "front_door is needed with persist: true; the roles hand it over, or set persist: false"
    if trouble is not None:
        module.fail_json(msg=trouble)
    return host


def no_card(host: Host, root: Root) -> str:
    """Return the sentence for a host without an NPU card."""
    return (
        "no NPU card on %s among %d PCI devices, so nothing was changed; seat the card, or add its identity to devices"
        % (host.model or "this host", len(root.names(DEVICES)))
    )


def changes_as_data(changes: Sequence[Change]) -> List[Dict[str, Any]]:
    """Return changes as plain data."""
    return [plain(change) for change in changes]


def _file_diff(path: str, before: FileState, after: FileState) -> Dict[str, str]:
    return {
        "before_header": path,
        "after_header": path,
        "before": _with_newline(show(before)),
        "after": _with_newline(show(after)),
    }


def _with_newline(text: Optional[str]) -> str:
    return "" if text is None else text if text.endswith("\n") else text + "\n"


def diff_of(changes: Sequence[Change], files: Sequence[Tuple[str, FileState, FileState]]) -> List[Dict[str, str]]:
    """Return Ansible's diff: files by content, everything else by value."""
    whole = {path for path, _before, _after in files}
    diffs = [
        {
            "before_header": change.path,
            "after_header": change.path,
            "before": _with_newline(change.before),
            "after": _with_newline(change.after),
        }
        for change in changes
        if change.path not in whole
    ]
    return diffs + [_file_diff(path, before, after) for path, before, after in files]


def unfit(path: str) -> Optional[str]:
    """Return why root must not depend for good on the interpreter with this real PATH; None if it may."""
    for place in _PASSING:
        if path.startswith(place + "/"):
            return "it is below %s" % place
    while True:
        try:
            found = os.stat(path)
        except OSError as error:
            return "%s: %s" % (path, error.strerror)
        others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        # In a sticky directory they may add files, but not replace root's.
        if found.st_uid != 0 or (others and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX)):
            return "others than root may change %s" % path
        if path == "/":
            return None
        path = os.path.dirname(path)


def lasting_python(executable: str, runner: Runner, system: str = "/usr/bin/python3") -> str:
    """Return the path of the interpreter for the agent, which root runs at every boot. Raises WishError.

    That is EXECUTABLE, the one that runs this module (what leads out of a virtual environment is followed), unless
    somebody else could change it or it may be gone tomorrow; then it is SYSTEM, if that will do. The agent is compiled
    for the former; the latter compiles it again for itself at its first start.

    Where both are the same it is called SYSTEM: an upgrade of the distribution takes /usr/bin/python3.11 away, and with
    it an agent that names it.
    """
    real, systems = os.path.realpath(executable), os.path.realpath(system)
    reason = unfit(real)
    if reason is None:
        return system if systems == real else real
    if unfit(systems) is None and runner([system, "-IS", "-c", _WILL_DO], 30.0).status == 0:
        return system
    raise WishError(
        "%s cannot be what root runs at every boot: %s, and %s is no Python 3.8 or newer that could stand in; set "
        "ansible_python_interpreter to one that only root can change, or set persist: false" % (real, reason, system)
    )


def keep_wishes(module: AnsibleModule, sink: Sink, ledger: Ledger, role: str, wishes: Dict[str, Any]) -> Kept:
    """Leave on the box what keeps WISHES in force, if the task asks for that."""
    if not module.params.get("persist", True):
        # Wishes kept by an earlier run would be put in force again by the next event.
        undone = undo(sink, ledger, role, limited(module), module.check_mode, values=False)
        return Kept(undone.changes, undone.files, undone.refused, undone.left)
    runner = limited(module)
    python = lasting_python(sys.executable, runner)
    return keep(sink, ledger, role, wishes, module.params["front_door"], python, runner, module.check_mode)


def undo_and_exit(module: AnsibleModule, sink: Sink, ledger: Ledger, role: str) -> None:
    """Give back all that ROLE changed, and end the module."""
    undone: Undone = undo(sink, ledger, role, limited(module), module.check_mode, module.params["after_roles"])
    result: Dict[str, Any] = {
        "changed": bool(undone.changes),
        "changes": changes_as_data(undone.changes),
        "refused": changes_as_data(undone.refused),
        "unknown": list(undone.left),
        "diff": diff_of(undone.changes, undone.files),
    }
    if undone.refused:
        module.fail_json(
            msg="not given back: " + "; ".join("%s: %s" % (one.path, one.why) for one in undone.refused), **result
        )
    result["msg"] = "nothing of ours was left to give back" if not undone.changes else "given back and read back"
    module.exit_json(**result)


def exit_with(
    module: AnsibleModule,
    changes: List[Change],
    files: Sequence[Tuple[str, FileState, FileState]],
    refused: List[Change],
    unknown: List[str],
    **more: Any,
) -> None:
    """End the module with the shape of result that all of them have."""
    result: Dict[str, Any] = dict(
        more,
        changed=bool(changes),
        changes=changes_as_data(changes),
        refused=changes_as_data(refused),
        unknown=unknown,
        diff=diff_of(changes, files),
    )
    if refused:
        sentence = "; ".join("%s: %s" % (change.path, change.why) for change in refused)
        if module.params["strict"]:
            module.fail_json(**dict(result, msg="refused: " + sentence))
        module.warn("refused: " + sentence)
    module.exit_json(**result)


def live_sink() -> Sink:
    """Return the live system, to read from and write to."""
    return Sink(Root("/"))


def fail(module: AnsibleModule, error: Exception) -> None:
    """End the module with one sentence: a wish's own, or what the operating system refused and where."""
    if isinstance(error, OSError):
        name = error.filename or "a file"
        code = errno.errorcode.get(error.errno or 0, "error")
        module.fail_json(msg="%s: %s (%s); mend that and run again" % (name, error.strerror, code))
    module.fail_json(msg=str(error))


@contextlib.contextmanager
def refusals_told(module: AnsibleModule, sink: Sink, lock: str = LOCK_PATH) -> Iterator[None]:
    """Run the body under the host's LOCK (check mode takes none), and tell what is refused in a sentence."""
    os.umask(0o022)  # what root runs later must not be writable by others, whatever the login shell thinks
    try:
        if module.check_mode:
            yield
        else:
            with Locked(sink, lock):
                yield
    except (WishError, NotAFile, OSError) as error:
        fail(module, error)
