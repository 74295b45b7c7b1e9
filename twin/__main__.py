# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m twin VERB: build, start, reach and stop twins."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import twins
from .board import BoardError
from .build import ensure_built, prune
from .host import TwinError, install_requirements, missing_packages
from .twins import DEFAULT_BOARD, DEFAULT_CARD, DEFAULT_NAME, Twin


def _running(name: str) -> Twin:
    twin = twins.find(name)
    if twin is None:
        raise TwinError(f"{name} does not run; start it with: python -m twin up {name}")
    return twin


def _build(arguments: argparse.Namespace) -> int:
    folder = ensure_built(arguments.board)
    print(f"twin: {arguments.board} is built: {folder}")
    return 0


def _up(arguments: argparse.Namespace, cold: bool = False) -> int:
    start = time.monotonic()
    twin = Twin.start(arguments.name, board=arguments.board, reuse=not cold, cold=cold)
    if twin.started_here:
        how = "booted" if cold else "resumed"
        print(f"twin: {twin.name} {how} in {time.monotonic() - start:.1f} s, ssh on 127.0.0.1:{twin.ssh_port}")
    else:
        print(f"twin: {twin.name} runs already, ssh on 127.0.0.1:{twin.ssh_port}")
    print(f"twin: log in with: python -m twin ssh {twin.name}")
    return 0


def _boot(arguments: argparse.Namespace) -> int:
    return _up(arguments, cold=True)


def _ssh(arguments: argparse.Namespace) -> int:
    command = _running(arguments.name).ssh_argv + arguments.command
    sys.stdout.flush()
    os.execvp(command[0], command)


def _down(arguments: argparse.Namespace) -> int:
    victims = [twin for twin in twins.known() if arguments.all or twin.name == arguments.name]
    for twin in victims:
        twin.stop()
        print(f"twin: {twin.name} stopped")
    if not victims:
        print("twin: nothing runs" if arguments.all else f"twin: {arguments.name} does not run")
    return 0


def _list(_unused: argparse.Namespace) -> int:
    for twin in twins.running():
        print(f"{twin.name}\t127.0.0.1:{twin.ssh_port}")
    return 0


def _requirements(_unused: argparse.Namespace) -> int:
    for package in missing_packages():
        print(package)
    return 0


def _install_requirements(_unused: argparse.Namespace) -> int:
    install_requirements()
    return 0


def _msi(arguments: argparse.Namespace) -> int:
    name, count = arguments.name, arguments.count
    if count is None and name.isdigit():
        name, count = DEFAULT_NAME, int(name)
    wanted = 1 if count is None else count
    taken = _running(name).raise_msi(wanted, arguments.event)
    print(f"twin: {wanted} MSI(s) raised, {taken} taken by the card's driver")
    return 0


def _link(arguments: argparse.Namespace) -> int:
    with _known_function(arguments) as twin:
        twin.set_link(arguments.bdf, arguments.speed, arguments.width)
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    with _known_function(arguments) as twin:
        twin.kill(arguments.bdf)
    return 0


def _revive(arguments: argparse.Namespace) -> int:
    with _known_function(arguments) as twin:
        twin.revive(arguments.bdf, after_reset=arguments.after_reset, patience_s=arguments.patience)
    return 0


@contextmanager
def _known_function(arguments: argparse.Namespace) -> Iterator[Twin]:
    twin = _running(arguments.name)
    try:
        yield twin
    except KeyError as error:
        raise TwinError(f"{twin.name} has no PCIe function {arguments.bdf}") from error


def _reset(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    twin = _running(arguments.name)
    twin.reset()
    print(f"twin: {twin.name} is back at the snapshot after {time.monotonic() - start:.1f} s")
    return 0


def _reboot(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    twin = _running(arguments.name)
    kernel = twin.reboot_and_wait(kernel=arguments.kernel)
    print(f"twin: {twin.name} is back with kernel {kernel} after {time.monotonic() - start:.1f} s")
    return 0


def _prune(_unused: argparse.Namespace) -> int:
    for folder in prune([twin.built for twin in twins.running()]):
        print(f"twin: removed {folder}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m twin", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, function: object, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if named:
            sub.add_argument("name", nargs="?", default=DEFAULT_NAME, help=f"the twin's name (default {DEFAULT_NAME})")
        return sub

    for name, function, text in (
        ("build", _build, "make everything up to the snapshot"),
        ("up", _up, "resume a clone of the snapshot, building first where needed"),
        ("boot", _boot, "like up, but a cold boot"),
    ):
        sub = verb(name, function, text, named=name != "build")
        sub.add_argument("--board", default=DEFAULT_BOARD, help=f"which board (default {DEFAULT_BOARD})")
    sub = verb("ssh", _ssh, "log in, or run a command; to give a command, give the name too")
    sub.add_argument("command", nargs=argparse.REMAINDER)
    sub = verb("down", _down, "stop a twin and forget its disk")
    sub.add_argument("--all", action="store_true", help="stop all twins of this checkout")
    verb("list", _list, "names and ssh addresses of the twins that run", named=False)
    sub = verb("reboot", _reboot, "boot a running twin again, with the kernel that its /vmlinuz names")
    sub.add_argument("--kernel", default="", metavar="RELEASE", help="another one that is installed on it")
    verb("reset", _reset, "put a running twin back to the snapshot")
    sub = verb("msi", _msi, "raise MSIs of the card from outside")
    sub.add_argument("count", nargs="?", type=int, help="how many (default 1)")
    sub.add_argument("--event", type=int, default=0, help="MSI vector (default 0)")
    sub = verb("link", _link, "change the negotiated link of the card")
    sub.add_argument("speed", type=float, help="GT/s per lane")
    sub.add_argument("width", type=int, help="lanes; 0 is a link that is down")
    sub.add_argument("--bdf", default=DEFAULT_CARD, help=f"port or endpoint (default {DEFAULT_CARD})")
    sub = verb("kill", _kill, "make the card dead: its registers read all ones until the next reset or reboot")
    sub.add_argument("--bdf", default=DEFAULT_CARD, help=f"which function (default {DEFAULT_CARD})")
    sub = verb("revive", _revive, "bring a dead card back")
    sub.add_argument("--bdf", default=DEFAULT_CARD, help=f"which function (default {DEFAULT_CARD})")
    sub.add_argument("--after-reset", action="store_true", help="as soon as the bus below its port is being reset")
    sub.add_argument("--patience", type=float, default=600, help="seconds to wait for that (default 600)")
    verb("requirements", _requirements, "Debian packages that this host lacks, one per line", named=False)
    verb("install-requirements", _install_requirements, "apt-get install them, with sudo if needed", named=False)
    verb("prune", _prune, "remove cached builds that the present sources do not lead to", named=False)
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return int(arguments.function(arguments))
    except (TwinError, BoardError) as error:
        print(f"twin: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
