# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m twin.standin: make a package that stands in for Axera's driver."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .builder import ARCHITECTURES, BEHAVIOURS, FAMILIES, Build, StandinError, build


def main() -> int:
    default = Build()
    parser = argparse.ArgumentParser(prog="python -m twin.standin", description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default=default.family)
    parser.add_argument("--version", default=default.version, help=f"the SDK's (default {default.version})")
    parser.add_argument("--stamp", default=default.stamp, help=f"of its build (default {default.stamp})")
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default=default.behaviour)
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default=default.architecture)
    parser.add_argument("--dpkg-version", default="", help="what dpkg is told, if not what the family's packages tell")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the package to")
    given = parser.parse_args()
    wanted = Build(given.family, given.version, given.behaviour, given.arch, given.stamp, given.dpkg_version)
    try:
        print(build(given.output, wanted))
    except StandinError as error:
        print(f"twin: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
