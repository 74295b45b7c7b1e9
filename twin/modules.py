# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The twin's kernel modules: headers of exactly the kernel's version, and a cross build against them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from . import apt
from .host import Log, TwinError, is_foreign

SOURCES = Path(__file__).parent / "kernel"
#: Where the build tools' own C library is, beside the headers.
LIBC = "libc"


def fetch_headers(log: Log, target: Path, kernel: str, version: str, sources: str) -> None:
    """Unpack the headers of a kernel below ``target``.

    ``kernel`` is what uname -r says there, ``version`` the Debian version of its package, ``sources`` deb822 text.
    They come through an apt of our own (its state lies below ``target``), so the host's package lists and
    architectures stay as they are. The build tools among them run on the host, so they are of its architecture; and
    since they may want a newer C library than the host has, they bring that of their own release.
    """
    state = target / "apt"
    for folder in (
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "etc/apt/sources.list.d",
        "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "var/lib/dpkg/status").write_text("", encoding="ascii")
    (state / "etc/apt/sources.list.d/twin.sources").write_text(sources, encoding="utf-8")
    host_architecture = log.run(["dpkg", "--print-architecture"], failure="dpkg does not know this host").strip()
    configuration = state / "apt.conf"
    configuration.write_text(
        f'{apt.host_settings()}Dir "{state}/";\nDir::State::status "{state}/var/lib/dpkg/status";\n'
        f'APT::Architecture "arm64";\nAPT::Architectures {{ "arm64"; "{host_architecture}"; }};\n'
        'APT::Sandbox::User "root";\nAcquire::Languages "none";\n',
        encoding="utf-8",
    )
    environment = {"APT_CONFIG": str(configuration)}
    log.run(["apt-get", "update"], env=environment, failure="the package lists for the kernel's headers did not load")
    downloads = target / "packages"
    downloads.mkdir()

    def download(*names: str) -> None:
        log.run(
            ["apt-get", "download", *names],
            cwd=downloads,
            env=environment,
            failure=f"the headers of kernel {kernel} ({version}) could not be downloaded",
        )

    download(f"linux-headers-{kernel}:arm64={version}")
    (headers,) = downloads.glob(f"linux-headers-{kernel}_*.deb")
    depends = log.run(["dpkg-deb", "-f", str(headers), "Depends"], failure=f"{headers.name} could not be read")
    common, tools = needed_by_headers(depends)
    if not common or not tools:
        raise TwinError(f"{headers.name} does not say which build tools it needs. See {log.path}.")
    download(f"{common}={version}", f"{tools}:{host_architecture}={version}", f"libc6:{host_architecture}")
    for package in sorted(downloads.glob("*.deb")):
        place = target / LIBC if package.name.startswith("libc6_") else target
        log.run(["dpkg-deb", "-x", str(package), str(place)], failure=f"{package.name} could not be unpacked")
    shutil.rmtree(downloads)
    shutil.rmtree(state)
    _make_movable(target / "usr/src" / f"linux-headers-{kernel}", log)
    wrap_tools(target / "usr/lib" / tools, target / LIBC)


def needed_by_headers(depends: str) -> tuple[str, str]:
    """Of what a kernel's header package depends on: the headers that all flavours share, and the build tools."""
    common = re.search(r"linux-headers-[^ ,]+-common[^ ,]*", depends)
    tools = re.search(r"linux-kbuild-[^ ,]+", depends)
    return common[0] if common else "", tools[0] if tools else ""


def wrap_tools(tools: Path, libc: Path) -> None:
    """Let programs run with a C library of their own, wherever the folder is moved to."""
    loader = next(path for path in sorted(libc.rglob("ld-linux*.so.*")) if not path.is_symlink())
    for program in sorted(tools.rglob("*")):
        if program.is_symlink() or not program.is_file() or not os.access(program, os.X_OK):
            continue
        with program.open("rb") as stream:
            if stream.read(4) != b"\x7fELF":
                continue
        binary = program.rename(program.with_name(f"{program.name}.bin"))
        way = f"${{0%/*}}/{os.path.relpath(loader, program.parent)}"
        program.write_text(
            # Some of them look for others by the name that they are called by.
            f'#!/bin/sh\nexec "{way}" --argv0 "$0" --library-path "{os.path.dirname(way)}" '
            f'"${{0%/*}}/{binary.name}" "$@"\n',
            encoding="ascii",
        )
        program.chmod(0o755)


def _make_movable(headers: Path, log: Log) -> None:
    """The package's makefile includes its neighbour by an absolute path: make it one relative to itself."""
    makefile = headers / "Makefile"
    if not makefile.exists():
        raise TwinError(f"the kernel's header package holds no {makefile}. See {log.path}.")
    text = makefile.read_text(encoding="utf-8")
    makefile.write_text(text.replace(" /usr/src/", " $(dir $(lastword $(MAKEFILE_LIST)))../"), encoding="utf-8")


def build(log: Log, headers: Path, kernel: str, work: Path) -> list[Path]:
    """Compile the modules for a kernel; the .ko files."""
    shutil.copytree(SOURCES, work)
    command = ["make", "-C", str(headers / "usr/src" / f"linux-headers-{kernel}"), f"M={work}", "ARCH=arm64", "modules"]
    # What the kernel's own compiler can, the one at hand may not; type information for BPF would need one more program.
    command += ["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "CONFIG_DEBUG_INFO_BTF_MODULES="]
    # Named here, for the headers ask for the very compiler version that built the kernel.
    compiler = "gcc"
    if is_foreign():
        command.append("CROSS_COMPILE=aarch64-linux-gnu-")
        compiler = "aarch64-linux-gnu-gcc"
    command.append(f"CC={compiler}")
    log.run(command, failure="the twin's kernel modules did not compile")
    modules = sorted(work.glob("*.ko"))
    if not modules:
        raise TwinError(f"the kernel's build system made no module. See {log.path}.")
    return modules
