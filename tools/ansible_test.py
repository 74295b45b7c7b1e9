# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running ansible-test where only a package index can be reached."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
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
    scripts = home / ".ansible" / "test" / "cache"
    scripts.mkdir(parents=True, exist_ok=True)
    for version in _pip_versions(venv_bin):
        (scripts / f"get_pip_{version.replace('.', '_')}.py").write_text(BOOTSTRAP, encoding="utf-8")
    _keep_pip_settings(home, venv_bin)
    # Other tools of the same environment (shellcheck, say) are found by PATH.
    return {**os.environ, "HOME": str(home), "PATH": f"{venv_bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _pip_versions(venv_bin: Path) -> set[str]:
    """Return the versions of pip that this ansible-test would install; they name its bootstrap script."""
    (source,) = venv_bin.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    return set(re.findall(r"pip='([0-9.]+)'", source.read_text(encoding="utf-8")))


def _keep_pip_settings(home: Path, venv_bin: Path) -> None:
    """Give pip below HOME the settings it has outside: ansible-test takes PIP_* and proxies out of the environment."""
    settings = configparser.RawConfigParser()
    real = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or real / ".config")
    settings.read([real / ".pip" / "pip.conf", config_home / "pip" / "pip.conf"], encoding="utf-8")
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings.set("global", name[len("PIP_") :].lower().replace("_", "-"), value)
    target = home / ".config" / "pip" / "pip.conf"
    target.parent.mkdir(parents=True, exist_ok=True)
    # An index's address may hold a password.
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        settings.write(stream)
    cache = home / ".cache" / "pip"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        found = subprocess.run([venv_bin / "python", "-m", "pip", "cache", "dir"], stdout=subprocess.PIPE, check=False)
        cache.symlink_to(found.stdout.decode().strip() or real / ".cache" / "pip")
