# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running ansible-test where only a package index can be reached."""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import re
import subprocess
import tempfile
from pathlib import Path

from .places import user_cache

# ansible-test fills an empty environment with a script that it fetches from a host of its own, unless the script lies
# in its cache already. This one does the same with what every Python brings along (ensurepip) and the package index.
# ensurepip needs a process of its own: it changes the environment of the one that it runs in.
BOOTSTRAP = """\
import subprocess
import sys

packages = [word for word in sys.argv[1:] if not word.startswith("-")]
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"] + packages)
"""


def environment(venv_bin: Path) -> dict[str, str]:
    """Return the environment for ansible-test out of VENV_BIN, with a home directory of its own.

    The user's home keeps what another collection's tests may need there.
    """
    home = user_cache() / "ansible-test"
    for version in _pip_versions(venv_bin):
        _write(home / ".ansible" / "test" / "cache" / f"get_pip_{version.replace('.', '_')}.py", BOOTSTRAP)
    _write(home / ".config" / "pip" / "pip.conf", _pip_settings())
    _share_pip_cache(home, venv_bin)
    # Other tools of the same environment (shellcheck, say) are found by PATH.
    return {**os.environ, "HOME": str(home), "PATH": f"{venv_bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _pip_versions(venv_bin: Path) -> set[str]:
    """Return the versions of pip that this ansible-test would install; they name its bootstrap script."""
    (source,) = venv_bin.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    return set(re.findall(r"pip='([0-9.]+)'", source.read_text(encoding="utf-8")))


def _write(path: Path, text: str) -> None:
    """Make PATH hold TEXT, for the user's eyes only. Where it does already, it is left alone: others may be reading."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=path.parent)
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(new, path)


def _pip_settings() -> str:
    """Return a pip.conf of the settings that pip has here: ansible-test takes PIP_* out of the environment."""
    settings = configparser.RawConfigParser()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    settings.read([Path.home() / ".pip" / "pip.conf", config_home / "pip" / "pip.conf"], encoding="utf-8")
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings.set("global", name[len("PIP_") :].lower().replace("_", "-"), value)
    text = io.StringIO()
    settings.write(text)
    return text.getvalue()


def _share_pip_cache(home: Path, venv_bin: Path) -> None:
    """Let pip below HOME use the cache of downloads that it has outside."""
    cache = home / ".cache" / "pip"
    if cache.exists():
        return
    found = subprocess.run([venv_bin / "python", "-m", "pip", "cache", "dir"], stdout=subprocess.PIPE, check=False)
    directory = Path(found.stdout.decode().strip() or Path.home() / ".cache" / "pip")
    directory.mkdir(parents=True, exist_ok=True)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        cache.symlink_to(directory)
