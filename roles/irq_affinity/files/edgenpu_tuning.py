# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""edgenpu-tuning: the tuning of this box, seen and set without a control node; and the agent's front door.

The role installs this file beside the layers it calls and puts the interpreter's line above it.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # the layers stand beside this file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Sequence

USAGE = """\
usage: edgenpu-tuning status            the box in a few lines: card, link, interrupt, clocks, verdict
       edgenpu-tuning diagnose [--json] every finding with evidence and remedy
                     [--bundle FILE]    and all that was read, packed to be looked at elsewhere: names of the host and
                                        its users, addresses and serial numbers are replaced
                     [--from PATH]      of another host: from its bundle, or from a directory with its proc and sys
                     [--fail-severity critical|warning|info|never]
                                        exit with 1 where something is as grave or graver; critical if not given
       edgenpu-tuning apply [--check]   put the wishes kept on this box in force now
       edgenpu-tuning rollback [--check] give back everything that the collection changed here
       edgenpu-tuning agent             what events start: apply, and tell the journal
       edgenpu-tuning metrics [--write] the box as metrics for Prometheus; --write: into the directory wished for
       edgenpu-tuning load MODULE [PARAMETER=VALUE ...]
                                        load a card's module so that its interrupts are born on the card's CPU

Exit status: 0 done; 1 something is refused, wished for in vain or (diagnose) too grave; 2 wrong usage.
"""


def catalogue_in_force(root: Any) -> Any:
    """Return the catalogue kept on the box, the built-in one where there is none; tell of wishes that are damaged."""
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, resolve
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, read_wishes, wishes_path

    wishes, problems = read_wishes(root)
    kinds = BUILT_IN
    role = next((name for name in ("irq_affinity", METRICS) if name in wishes), "irq_affinity")
    try:
        kinds = resolve(wishes.get(role, {}).get("catalogue"))
    except WishError as error:
        problems.append("%s: %s" % (wishes_path(role), error))
    for problem in problems:
        print("edgenpu-tuning: %s" % printable(problem), file=sys.stderr)
    return kinds


def run_command(argv: Sequence[str], timeout_s: float) -> Any:
    """Run a command with a time limit; one that cannot be run or takes too long has a status other than 0."""
    import subprocess

    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran

    try:
        done = subprocess.run(
            argv,
            timeout=timeout_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Ran(127, str(error))
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace"))


def tell_changes(changes: Sequence[Any], refused: Sequence[Any], verb: str) -> None:
    """Print changes and refusals for a person."""
    for change in changes:
        print(
            "%s %s: %s -> %s (%s)"
            % (verb, change.path, first_line(change.before), first_line(change.after), change.why)
        )
    for change in refused:
        print("refused %s: %s" % (change.path, change.why))


def first_line(text: Any) -> str:
    """Return a value short enough for one line."""
    if text is None:
        return "nothing"
    lines = str(text).splitlines() or [""]
    return lines[0] if len(lines) == 1 else "%d lines" % len(lines)


def agent(options: List[str]) -> int:
    """Put the wishes in force; one JSON object a line for what was changed or refused, for the journal."""
    import json
    import time

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import keep_in_force
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, wishes_path

    if not need_root(False):
        return 1

    def tell(event: str, change: Any) -> None:
        print(json.dumps(dict(change._asdict(), event=event), sort_keys=True), flush=True)

    sink = Sink(Root("/"))
    began = time.monotonic()
    report = keep_in_force(sink, tell=lambda change: tell("changed", change))
    duration_s = time.monotonic() - began
    for refusal in report.refused:
        tell("refused", refusal)
    # Who does without metrics does without their code, too.
    metrics = metrics_of_run(sink, report, duration_s) if sink.root.exists(wishes_path(METRICS)) else []
    for word, lines in (("unknown", report.unknown), ("problem", report.problems + metrics)):
        for line in lines:
            print(json.dumps({"event": word, "message": line}, sort_keys=True))
    # What a kernel refuses at every boot is told, but is no failed unit; wishes that make no sense are.
    return 1 if report.problems else 0


def metrics_of_run(sink: Any, report: Any, duration_s: float) -> List[str]:
    """Write the metrics of the agent's run that has just ended; return what stood in the way.

    Those of the host are another unit's business: a card that answers late must not keep the next event waiting.
    """
    import time

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.metrics import write_run
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import METRICS_UNIT_NAME
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import Run

    run = Run(time.time(), duration_s, len(report.changes), len(report.refused), len(report.problems))
    problems = write_run(sink, run)
    asked = ["systemctl", "--no-block", "start", METRICS_UNIT_NAME]
    ran = run_command(asked, 30.0)
    if ran.status != 0:
        problems.append("metrics: %s: %s" % (" ".join(asked), ran.output.strip() or "exit status %d" % ran.status))
    return problems


def metrics(options: List[str]) -> int:
    """Print the metrics of the host, or write them where they are wished for."""
    import time

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.metrics import host_metrics, write_metrics
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, wishes_path

    root = Root("/")
    if "--write" not in options:
        print(host_metrics(root, catalogue_in_force(root), time.time(), run_command), end="")
        return 0
    if not need_root(False):
        return 1
    if not root.exists(wishes_path(METRICS)):
        problems = ["no metrics are wished for on this host; set diagnostics_metrics_dir and run the playbook"]
    else:
        problems = write_metrics(Sink(root), time.time, run_command)
    for problem in problems:
        print("edgenpu-tuning: %s" % printable(problem), file=sys.stderr)
    return 1 if problems else 0


def apply(options: List[str]) -> int:
    """Put the wishes in force, for a person."""
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import keep_in_force
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

    check = "--check" in options
    if not need_root(check):
        return 1
    report = keep_in_force(Sink(Root("/")), check)
    tell_changes(report.changes, report.refused, "would change" if check else "changed")
    for line in report.unknown + report.problems:
        print(line)
    if not report.changes and not report.refused and not report.problems:
        print("nothing to change: all wishes on this box are in force")
    return 1 if report.refused or report.problems else 0


def rollback(options: List[str]) -> int:
    """Give everything back, the agent and this command included."""
    import contextlib

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Ledger, Locked
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

    check = "--check" in options
    if not need_root(check):
        return 1
    sink = Sink(Root("/"))
    found, refused = False, []
    with contextlib.nullcontext() if check else Locked(sink):
        ledger = Ledger(sink)
        roles = sorted({entry.role for entry in ledger.entries()} - {SHARED}) or [SHARED]
        for at, role in enumerate(roles):
            undone = undo(sink, ledger, role, run_command, check, roles[:at])
            tell_changes(undone.changes, undone.refused, "would give back" if check else "gave back")
            for line in undone.left:
                print(line)
            found = found or bool(undone.changes or undone.refused or undone.left)
            refused += undone.refused
    if not found:
        print("nothing of the collection is left here to give back")
    elif not refused and not check:
        print("everything that was changed here has been given back and read back")
    return 1 if refused else 0


def load(options: List[str]) -> int:
    """Load a module while new interrupts start on the card's CPU; the exit status is modprobe's."""
    import signal
    import subprocess

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.born import born_there
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)  # so that the default mask is put back

    def modprobe() -> int:
        return subprocess.call(["modprobe", "--ignore-install", *options], env=dict(os.environ, **{LOADING: "1"}))

    if LOADING in os.environ:
        return modprobe()  # a module that the other one needs: who loads that one waits for us and holds the lock
    loaded = born_there(Sink(Root("/")), options[0], modprobe)
    for problem in loaded.problems:
        print("edgenpu-tuning: %s" % problem, file=sys.stderr)
    return loaded.status


def need_root(check: bool) -> bool:
    """Tell whether this user may do it; if not, say what to do."""
    if check or os.geteuid() == 0:
        return True
    print(
        "edgenpu-tuning: user id %d may not write to /proc/irq and /sys; run with sudo" % os.geteuid(), file=sys.stderr
    )
    return False


def option(options: List[str], name: str) -> Any:
    """Return the value of an option; None if it was not given."""
    return options[options.index(name) + 1] if name in options else None


def printable(text: Any) -> str:
    """Return a text that leaves the terminal alone: a stranger's bundle may hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def coloured(severity: str, text: str) -> str:
    """Return a text in the colour of a severity, where there is a terminal to show it (and see no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or not sys.stdout.isatty():
        return text
    return "\033[%sm%s\033[0m" % (COLOURS.get(severity, "0"), text)


def verdict_of(data: Any) -> str:
    """Return the verdict, in the colour of what weighs most."""
    grave = {one["severity"] for one in data["findings"]}
    severity = next((one for one in ("critical", "warning") if one in grave), "ok")
    return coloured(severity, printable(data["verdict"]))


def diagnose(options: List[str]) -> int:
    """Print every finding, of this host or of the one that a bundle is of; write a bundle if asked for one."""
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import too_grave
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import files

    source, target = option(options, "--from"), option(options, "--bundle")
    kinds: Any = None
    root: Any
    if source is not None:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import resolve
        from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import BundleError, open_root

        try:
            opened = open_root(source)
        except BundleError as error:
            print("edgenpu-tuning: %s" % printable(error), file=sys.stderr)
            return 1
        root = opened.root
        if opened.devices:
            kinds = resolve(opened.devices)
    elif target is not None:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import Recorder

        root = Recorder("/")
    else:
        root = files.Root("/")
    if kinds is None:
        kinds = catalogue_in_force(root)
    data = report(look(root, kinds, run_command if root.is_live else None))
    if target is not None:
        write_bundle(root, kinds, target)
    if "--json" in options:
        import json

        print(json.dumps(data, indent=1, sort_keys=True))
    else:
        print(verdict_of(data))
        tell_deeds(data)
        for one in data["findings"]:
            severity = coloured(one["severity"], printable("%-8s" % one["severity"]))
            print("%s %s" % (severity, printable("%s: %s" % (one["id"], one["summary"]))))
            for where, value in one["evidence"].items():
                shown = "%(before)s -> %(after)s (%(why)s)" % value if one["id"] == "drift" else value
                print(printable("           %s = %s" % (where, shown)))
            if one["remedy"]:
                print(printable("           -> %s" % one["remedy"]))
    return 1 if too_grave(data["findings"], option(options, "--fail-severity") or "critical") else 0


def tell_deeds(data: Any) -> None:
    """Print what is worth doing, that which gains most first."""
    told = data["expected_gain"]["text"]
    if data["worth_doing"]:
        print(printable("to gain    %s" % told))
    for number, deed in enumerate(data["worth_doing"], 1):
        print(printable("%9d. %s (%s)" % (number, deed["what"], ", ".join(deed["findings"]))))
        if deed["expected_gain"] not in (None, told):
            print(printable("           to gain: %s" % deed["expected_gain"]))


def write_bundle(recorder: Any, kinds: Any, path: str) -> None:
    """Write a bundle of what the recorder saw, and tell what to do with it."""
    import time

    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.bundle import bundle, write_new

    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = bundle(recorder, kinds, run_command if recorder.is_live else None, taken)
    # Who became root by sudo wants to send it as themselves.
    known = [os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    owner = tuple(map(int, known)) if os.geteuid() == 0 and all(name.isdecimal() for name in known) else None
    write_new(path, made.data, owner)
    removed = ", ".join("%d x %s" % (times, kind) for kind, times in sorted(made.manifest["scrubbed"].items()))
    print(
        "edgenpu-tuning: %s written (%d kB; replaced or left out: %s); read it before you send it: tar -xOzf %s | less"
        % (path, (len(made.data) + 1023) // 1024, removed or "nothing", path),
        file=sys.stderr,
    )


def status(options: List[str]) -> int:
    """Print the box in a few lines."""
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

    root = Root("/")
    data = report(look(root, catalogue_in_force(root), run_command if root.is_live else None))
    host = data["host"]
    print("%s, kernel %s" % (host["model"] or "unknown board", host["kernel"]))
    for card in data["cards"]:
        limit = card["link_verdict"]
        link = card["link"]
        print("card       %s %s, driver %s" % (card["npu"], card["bdf"], card["driver"] or "none"))
        if limit is not None:
            print("link       %g GT/s x%d: %s" % (link["negotiated_gt_s"], link["negotiated_width"], limit["limit"]))
        elif card["internal"] or card["hops"]:
            print("link       %s" % ("none: part of the processor" if card["internal"] else card["hops"][0]["limit"]))
        share = card["share_mb_s"]
        if share is not None and card["shared_with"]:
            print(
                "           %.0f MB/s read while all cards work, %.0f alone; shared with %s"
                % (share["read"], card["bandwidth_mb_s"]["read"], ", ".join(card["shared_with"]))
            )
        for line in card["interrupts"]:
            print(
                "interrupt  %d on CPU %s (allowed: %s)"
                % (line["irq"], line["effective"] or "?", line["affinity"] or "?")
            )
    for policy in data["policies"]:
        khz = policy["current_khz"]
        clock = "" if khz is None else ", %d MHz now" % (khz // 1000)
        print(
            "clock      %s (CPUs %s): %s%s" % (policy["name"], policy["cpus"], policy["governor"] or "offline", clock)
        )
    print("kept       %s" % (", ".join(data["kept"]) or "nothing: a reboot or a driver reload loses the tuning"))
    print("verdict    %s" % verdict_of(data))
    tell_deeds(data)
    return 0


LOADING = "EDGENPU_TUNING_LOADING"
COLOURS = {"critical": "1;31", "warning": "33", "info": "36", "ok": "32"}
VERBS = {
    "status": status,
    "diagnose": diagnose,
    "apply": apply,
    "rollback": rollback,
    "agent": agent,
    "metrics": metrics,
    "load": load,
}
# An option that takes a value has the values that it knows: () for any.
OPTIONS: Any = {
    "diagnose": {
        "--json": None,
        "--bundle": (),
        "--from": (),
        "--fail-severity": ("critical", "warning", "info", "never"),
    },
    "apply": {"--check": None},
    "rollback": {"--check": None},
    "metrics": {"--write": None},
}


def misunderstood(arguments: List[str]) -> Any:
    """Return what is wrong with the words of a command, in a few words; None if nothing is."""
    if not arguments:
        return "a verb is missing"
    verb = arguments[0]
    if verb not in VERBS:
        return "%r is no verb" % verb
    if verb == "load":
        return None if len(arguments) > 1 and not arguments[1].startswith("-") else "load: which module?"
    known = OPTIONS.get(verb, {})
    given = set()
    words = iter(arguments[1:])
    for word in words:
        if word not in known:
            return "%s does not know %r" % (verb, word)
        if word in given:
            return "%s is there twice" % word
        given.add(word)
        if known[word] is not None:
            value = next(words, "-")
            if value.startswith("-"):
                return "%s needs a value" % word
            if known[word] and value not in known[word]:
                return "%s is one of %s, not %r" % (word, ", ".join(known[word]), value)
    return "--bundle and --from exclude each other" if {"--bundle", "--from"} <= given else None


def main(arguments: List[str]) -> int:
    """Run one verb and return the exit status."""
    if arguments in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(USAGE)
        return 0
    wrong = misunderstood(arguments)
    if wrong is not None:
        sys.stderr.write("%s\nedgenpu-tuning: %s\n" % (USAGE, wrong))
        return 2
    from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import NotAFile
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError

    os.umask(0o022)
    try:
        status = VERBS[arguments[0]](arguments[1:])
        sys.stdout.flush()
        return status
    except (WishError, NotAFile) as error:
        print("edgenpu-tuning: %s" % error, file=sys.stderr)
    except BrokenPipeError:
        # Whoever read this has gone; Python must not try again to write it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print("edgenpu-tuning: %s: %s" % (error.filename or "a file", error.strerror), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
