# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are, in the checkout and in the cache."""

from __future__ import annotations

import os
from pathlib import Path

NAMESPACE = "edgenpu"
NAME = "tuning"

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv"
WORK = ROOT / ".cache"

# Ansible finds a collection by the names of its directories: playbooks, molecule and the quick unit tests go through
# this link, so that an edit is seen at once.
LINK_ROOT = WORK / "link"
LINK = LINK_ROOT / "ansible_collections" / NAMESPACE / NAME

# ansible-test refuses a link, and a linter should see what a clone would hold and nothing else: they get a copy.
COPY_ROOT = WORK
COPY = COPY_ROOT / "ansible_collections" / NAMESPACE / NAME


def user_cache() -> Path:
    """Return the directory for what is worth keeping longer than a checkout."""
    named = os.environ.get("EDGENPU_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenpu-tuning"


def make_link() -> None:
    """Make the link to the checkout, if it is not there."""
    if LINK.is_symlink() and LINK.resolve() == ROOT:
        return
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(os.path.relpath(ROOT, LINK.parent))
