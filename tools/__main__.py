# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands behind the Makefile."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from . import gates, machine, matrix, venvs
from .places import make_link

OLDEST_PYTHON = (3, 10)


def main() -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tools", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    venv = commands.add_parser("venv", help="make a virtual environment of requirements/NAME.txt if need be")
    venv.add_argument("name")
    install = commands.add_parser("install", help="install the Debian packages that are missing, after asking")
    install.add_argument("--browser", action="store_true", help="also those for the gate report")
    gate = commands.add_parser("gate", help="run gates, in the order given")
    gate.add_argument("groups", nargs="+", choices=sorted(GROUPS))
    gate.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many side by side (%(default)s)")
    arguments = parser.parse_args()

    if sys.version_info < OLDEST_PYTHON:
        print(
            f"{sys.executable} is Python {sys.version.split()[0]}, and 3.10 is needed: make PYTHON=...", file=sys.stderr
        )
        return 1
    try:
        if arguments.command == "venv":
            venvs.ensure(arguments.name)
            make_link()
            return 0
        if arguments.command == "install":
            return machine.install_missing(arguments.browser)
        return gates.run([gate for group in arguments.groups for gate in GROUPS[group]()], arguments.jobs)
    except venvs.VenvError as error:
        print(error, file=sys.stderr)
        return 1


GROUPS: dict[str, Callable[[], list[gates.Gate]]] = {
    "lint": gates.lint_gates,
    "twin": gates.twin_gates,
    "sanity": gates.sanity_gates,
    "unit": gates.unit_gates,
    "report": gates.report_gates,
    "molecule": gates.molecule_gates,
    "matrix": matrix.gates,
    "scenarios": gates.scenario_gates,
}

if __name__ == "__main__":
    sys.exit(main())
