# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the machine must have before the tools can work, and the question before it is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

from . import venvs
from .places import ROOT

# The browser in which reports are looked at: Debian's packages, each with what shows that it (or its like) is there.
BROWSER = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "chromium-driver": ("chromedriver",),
    "fonts-dejavu-core": ("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",),
}


def install_missing(browser: bool = False) -> int:
    """Install the Debian packages that are missing, after asking where there is somebody to ask; 0 if all are there.

    BROWSER: those for the gate `report` as well.
    """
    twin = [sys.executable, "-m", "twin"]
    listing = subprocess.run([*twin, "requirements"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if listing.returncode:
        print(f"`{shlex.join([*twin, 'requirements'])}` ended with {listing.returncode}", file=sys.stderr)
        return 1
    packages = listing.stdout.decode().split()
    if not venvs.can_make_venvs():
        packages.append("python3-venv")
    if browser:
        packages += [package for package, proofs in BROWSER.items() if not any(map(_is_there, proofs))]
    if not packages:
        return 0

    root = [] if os.geteuid() == 0 else ["sudo"]
    print("Debian packages to be installed" + (", with sudo:" if root else ":"))
    print("\n".join(f"  {package}" for package in packages))
    print("Python packages go to .venv/ and images to ~/.cache/edgenpu-tuning/, without root.", flush=True)
    missing_tool = next((tool for tool in ["apt-get", *root] if not shutil.which(tool)), None)
    if missing_tool:
        print(f"There is no {missing_tool} here: install them, or what corresponds to them, by hand.", file=sys.stderr)
        return 1
    if not _may_install():
        print("Nothing was installed.", file=sys.stderr)
        return 1
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]):
        status = subprocess.run(command, check=False).returncode
        if status:
            print(f"`{shlex.join(command)}` ended with {status}", file=sys.stderr)
            return 1
    return 0


def _is_there(proof: str) -> bool:
    return os.path.isfile(proof) if proof.startswith("/") else shutil.which(proof) is not None


def _may_install() -> bool:
    """Ask, unless nobody is there to answer: in CI, or without a terminal."""
    if os.environ.get("CI", "").lower() in ("1", "true") or not sys.stdin.isatty():
        return True
    return input("Install them now? [y/N] ").strip().lower() in ("y", "yes")
