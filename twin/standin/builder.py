# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the stand-in's Debian packages; the same arguments give the same bytes."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, NamedTuple

HERE = Path(__file__).parent
HOST_DRIVER = HERE.parent / "kernel" / "ax_pcie_host_dev.c"

FAMILIES = ("vendor", "dkms")
BEHAVIOURS = ("builds", "fails-to-build", "fails-to-load", "dead-card", "hangs")
ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
MODULES = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host", "ax_pcie_p2p_rc")
VENDOR_SOURCE = "usr/src/axcl/drv/pcie/driver"
FIRMWARE = "lib/firmware/axcl/ax650_card.pac"
TOOL = "usr/bin/axcl/axcl-smi"
PROGRAM = "usr/bin/axcl/axcl_sample_runtime"

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_STAMP = re.compile(r"20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d[0-5]\d")
_DPKG_VERSION = re.compile(r"\d[A-Za-z0-9.+~-]*")

_UDEV = {
    "vendor": 'KERNEL=="%s", MODE="0666"\n',
    # What nobody has filled in is no group, so the nodes stay root's.
    "dkms": 'KERNEL=="%s", GROUP="<users>", MODE="0660"\n',
}
_CONTROL = """\
Package: axclhost
Version: {version}
Architecture: {architecture}
Maintainer: The edgenpu.tuning authors <edgenpu@example.com>
Depends: {depends}
Section: misc
Priority: optional
Description: stand-in for the host driver of Axera's PCIe cards
 Made by edgenpu.tuning for its tests; it holds nothing of the vendor's and drives
 no card. Do not install it where you mean to use one.
"""
_DKMS_CONF = """\
PACKAGE_NAME="axclhost"
PACKAGE_VERSION="{version}"
MAKE[0]="make KDIR=$kernel_source_dir host={host} all"
CLEAN="make KDIR=$kernel_source_dir host={host} clean"
AUTOINSTALL="yes"
"""


class StandinError(Exception):
    """Why a package cannot be made, in a sentence."""


class Build(NamedTuple):
    """What to build.

    ``version`` is the SDK's, ``stamp`` that of its build (YYYYMMDDhhmmss). ``dpkg_version`` is what dpkg is told: by
    default 1.0.0 in the vendor's packages, whatever is in them, and the SDK's version in those for DKMS.
    """

    family: str = "vendor"
    version: str = "3.6.5"
    behaviour: str = "builds"
    architecture: str = "arm64"
    stamp: str = "20250908154509"
    dpkg_version: str = ""

    @property
    def long_version(self) -> str:
        """As the tools print it."""
        return f"V{self.version}_{self.stamp}"

    @property
    def package_version(self) -> str:
        """As dpkg has it."""
        return self.dpkg_version or ("1.0.0" if self.family == "vendor" else f"{self.version}-standin1")

    @property
    def file_name(self) -> str:
        """As the package's publisher would call it."""
        if self.family == "vendor":
            number = int(hashlib.sha256(self.long_version.encode()).hexdigest()[:8], 16) % 9000 + 1000
            return f"axcl_host_{ARCHITECTURES[self.architecture]}_{self.long_version}_NO{number}.deb"
        return f"axclhost_{self.package_version}_{self.architecture}.deb"

    @property
    def time(self) -> datetime.datetime:
        """When it "was built"."""
        return datetime.datetime.strptime(self.stamp, "%Y%m%d%H%M%S").replace(tzinfo=datetime.timezone.utc)


def check(wanted: Build) -> None:
    """Raise StandinError for what cannot be built."""
    for name, value, known in (
        ("family", wanted.family, FAMILIES),
        ("behaviour", wanted.behaviour, BEHAVIOURS),
        ("architecture", wanted.architecture, tuple(ARCHITECTURES)),
    ):
        if value not in known:
            raise StandinError(f"{name} {value!r} is not one of {', '.join(known)}")
    if not _VERSION.fullmatch(wanted.version):
        raise StandinError(f"version {wanted.version!r} is not of the form 3.6.5")
    if not _STAMP.fullmatch(wanted.stamp):
        raise StandinError(f"stamp {wanted.stamp!r} is not of the form YYYYMMDDhhmmss")
    if wanted.dpkg_version and not _DPKG_VERSION.fullmatch(wanted.dpkg_version):
        raise StandinError(f"dpkg version {wanted.dpkg_version!r} is none")


def build(output: Path, wanted: Build) -> Path:
    """Write the package into the folder OUTPUT; the path of the file. Raises StandinError if it cannot be made."""
    check(wanted)
    if shutil.which("dpkg-deb") is None:
        raise StandinError("dpkg-deb is needed to make a package; it is part of every Debian-like system")
    output.mkdir(parents=True, exist_ok=True)
    target = output / wanted.file_name
    epoch = int(wanted.time.timestamp())
    with tempfile.TemporaryDirectory(prefix="axcl-standin-") as scratch:
        root = Path(scratch) / "root"
        _fill(root, wanted)
        for path in [root, *root.rglob("*")]:
            os.chmod(path, 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            os.utime(path, (epoch, epoch))
        # One thread and one compressor: the bytes must not depend on the machine.
        made = subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z9", "--build", str(root), str(target)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode != 0:
        raise StandinError(f"dpkg-deb: {made.stderr.strip()}")
    return target


def write_sources(folder: Path, wanted: Build) -> None:
    """Write the source of the kernel modules, ready for make, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((HERE / "kernel").iterdir()):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(HOST_DRIVER, folder / "host_dev.c")
    version = f'/* SPDX-License-Identifier: GPL-2.0-only */\n#define AX_VERSION "{wanted.long_version}"\n'
    (folder / "ax_version.h").write_text(version, encoding="ascii")


def elf(architecture: str) -> bytes:
    """A program for an architecture, complete and as small as can be: it ends with exit status 0."""
    machine, code = {
        "arm64": (183, bytes.fromhex("a80b8052000080d2010000d4")),  # mov w8, 93; mov x0, 0; svc 0
        "amd64": (62, bytes.fromhex("b83c00000031ff0f05")),  # mov eax, 60; xor edi, edi; syscall
    }[architecture]
    base, start = 0x400000, 64 + 56
    size = start + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000) + code


def _texts(wanted: Build) -> Dict[str, str]:
    """Files that are text, the driver's source excepted."""
    host = "arm64" if wanted.architecture == "arm64" else "x86"
    built = wanted.time.strftime("%b %e %Y %H:%M:%S")
    smi = (HERE / "smi.py").read_text(encoding="utf-8")
    smi = smi.replace('VERSION = "V0.0.0_00000000000000"', f'VERSION = "{wanted.long_version}"')
    smi = smi.replace('BUILT = "Jan  1 1970 00:00:00"', f'BUILT = "{built}"')
    nodes = ("msg_userdev", "ax_mmb_dev", "axcl_host", "p2p")
    texts = {
        "etc/modules-load.d/axcl_pcie.conf": "".join(f"{module}\n" for module in MODULES),
        "etc/udev/rules.d/axcl_host.rules": "".join(_UDEV[wanted.family] % node for node in nodes),
        "etc/ld.so.conf.d/axcl.conf": "/usr/lib/axcl\n",
        "etc/profile.d/axcl.sh": 'export PATH="$PATH:/usr/bin/axcl:/usr/bin/axcl/ut"\n',
        "usr/share/axcl-standin/defaults.conf": f"behaviour={wanted.behaviour}\n",
        "usr/include/axcl/axcl.h": "/* stand-in */\n",
        "usr/bin/axcl/axcl.json": '{"log": {"host": {"path": "/tmp/axcl/axcl_logs.txt", "level": 2}}}\n',
        TOOL: "#!/usr/bin/python3\n" + smi,
    }
    if wanted.family == "dkms":
        conf = _DKMS_CONF.format(version=wanted.version, host=host)
        for number, module in enumerate((*MODULES, "ax_pcie_net_host")):
            conf += f'BUILT_MODULE_NAME[{number}]="{module}"\nDEST_MODULE_LOCATION[{number}]="/updates/dkms"\n'
        texts[f"usr/src/axclhost-{wanted.version}/dkms.conf"] = conf
    return texts


def _fill(root: Path, wanted: Build) -> None:
    """Lay the package's files out below ROOT, control files included."""
    texts = _texts(wanted)
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    source = VENDOR_SOURCE if wanted.family == "vendor" else f"usr/src/axclhost-{wanted.version}"
    write_sources(root / source, wanted)
    firmware = f"edgenpu.tuning stand-in\nszProdName: AX650\nszProdVer: {wanted.long_version}\n".encode("ascii")
    for name, content in ((FIRMWARE, firmware.ljust(4096, b"\0")), (PROGRAM, elf(wanted.architecture))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "usr/lib/axcl").mkdir(parents=True)
    os.chmod(root / TOOL, 0o755)
    os.chmod(root / PROGRAM, 0o755)
    _control(root, wanted)


def _control(root: Path, wanted: Build) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    control = root / "DEBIAN"
    control.mkdir()
    (control / "md5sums").write_text("".join(sums), encoding="ascii")
    vendor = wanted.family == "vendor"
    # The vendor's knows of no kernel headers, and says "all" of programs for one architecture.
    depends = "gcc (>= 9.4.0), make, patch, kmod, udev" if vendor else "dkms, kmod, udev"
    text = _CONTROL.format(
        version=wanted.package_version, architecture="all" if vendor else wanted.architecture, depends=depends
    )
    (control / "control").write_text(text, encoding="ascii")
    for path in sorted((HERE / "scripts").glob(f"{wanted.family}.*.sh")):
        script = control / path.name.split(".")[1]
        script.write_text(path.read_text(encoding="utf-8").replace("@VERSION@", wanted.version), encoding="utf-8")
        os.chmod(script, 0o755)
