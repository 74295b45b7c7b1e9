# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A board on which packages can be installed: .deb files put together here, and the tools that would handle them."""

from __future__ import annotations

import gzip
import io
import lzma
import pathlib
import shutil
import struct
import tarfile
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    INSTALL_LOG,
    MODULES,
    SANDBOX,
    SANDBOX_TEXT,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import parse_deb
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

KERNEL = hosts.RELEASE
NEWER = "6.1.84"
PROC_VERSION = "Linux version %s (root@builder) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1 SMP\n"
RULES = 'KERNEL=="msg_userdev", MODE="0666"\nKERNEL=="axcl_host", MODE="0666"\n'
AUTOLOAD = "".join(module + "\n" for module in MODULES)
SMI = "/usr/bin/axcl/axcl-smi"
VENDOR_FILE = "axcl_host_aarch64_V3.6.4_20250822020158_NO4873.deb"


def module_file(release: str, srcversion: str = "ABC", wide: bool = True, order: str = "<") -> bytes:
    """Return an ELF file with a .modinfo section as the kernel's build makes it, and nothing else."""
    info = b"\0".join(
        [
            b"license=GPL",
            b"srcversion=" + srcversion.encode(),
            ("vermagic=%s SMP mod_unload aarch64" % release).encode(),
            b"",
        ]
    )
    names = b"\0.modinfo\0.shstrtab\0"
    head = 64 if wide else 52
    layout = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
    at = head + len(info) + len(names)
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 0, 0, head, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, head + len(info), len(names), 0, 0, 1, 0),
    ]
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    fields = (1, 183, 1, 0, 0, at, 0, head, 0, 0, struct.calcsize(layout), len(sections), 2)
    header = ident + struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *fields)
    return header + info + names + b"".join(struct.pack(layout, *section) for section in sections)


def _tar(files: Dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo("./" + name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def archive(members: Sequence[Tuple[str, bytes]]) -> bytes:
    """Return an ar archive."""
    data = b"!<arch>\n"
    for name, content in members:
        data += ("%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, "100644", len(content))).encode()
        data += content + b"\n" * (len(content) % 2)
    return data


def deb(
    ending: str = ".gz",
    architecture: str = "all",
    depends: str = "gcc (>= 9.4.0), make",
    version: str = "1.0.0",
    **more: str,
) -> bytes:
    """Return a .deb file; MORE are control fields."""
    fields = dict({"Package": "axclhost", "Version": version, "Architecture": architecture, "Depends": depends}, **more)
    control = _tar(
        {
            "postinst": "#!/bin/sh\n",
            "control": "".join("%s: %s\n" % item for item in fields.items()) + "Description: x\n more\n",
        }
    )
    packed = {
        "": lambda data: data,
        ".gz": lambda data: gzip.compress(data, mtime=0),
        ".xz": lzma.compress,
        ".zst": lambda data: b"\x28\xb5\x2f\xfd" + data,
    }[ending](control)
    return archive([("debian-binary", b"2.0\n"), ("control.tar" + ending, packed), ("data.tar.xz", b"payload")])


def stanza(name: str, version: str = "1", status: str = "install ok installed", architecture: str = "arm64") -> str:
    """Return a package's entry in dpkg's database."""
    return "Package: %s\nStatus: %s\nArchitecture: %s\nVersion: %s\nDescription: x\n y\n\n" % (
        name,
        status,
        architecture,
        version,
    )


class Box(hosts.Board):
    """A CM3588 with a card and no driver, on which dpkg, apt, DKMS, kmod, systemd and udev answer as the real ones do.

    COMMANDS lists what was run. FAIL maps the beginning of a command to its status and output. BEFORE is called with
    every command, for tests that interfere. FAMILY: "vendor" (its scripts build and load) or "dkms".
    """

    def __init__(self, tree: Tree, family: str = "vendor", card: bool = True) -> None:
        super().__init__(tree, card=card, driver=False)
        self.family = family
        self.commands: List[str] = []
        self.limits: Dict[str, float] = {}
        self.fail: Dict[str, Tuple[int, str]] = {}
        self.before: Callable[[str], None] = lambda line: None
        self.card_alive = True
        self.installed: Dict[str, str] = {}  # name -> whole stanza
        self.versions = ["3.6.5-m5stack1", "3.6.4-m5stack1"]  # of axclhost, in the repository that is set up
        self.release = "Origin: stand-in\nSuite: axclhost\nArchitectures: arm64\nComponents: main\n"
        tree.file("/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        tree.file("/proc/version", PROC_VERSION % KERNEL)
        tree.file("/proc/modules", "")
        tree.file("/etc/group", "root:x:0:\n")
        tree.file("/usr/bin/gcc-12")
        tree.link("/usr/bin/gcc", "gcc-12")
        for path in (
            "/etc/apt/apt.conf.d",
            "/etc/modules-load.d",
            "/usr/src",
            "/var/lib/dpkg",
            "/etc/systemd/system/multi-user.target.wants",
        ):
            tree.file(path + "/.keep")
        for name in ("dpkg", "dkms", "gcc", "make", "patch", "kmod"):
            self.add_package(name)
        self.kernel_installed(KERNEL)

    def add_package(self, name: str, **more: str) -> None:
        """Let dpkg know of a package."""
        self.installed[name] = stanza(name, **more)
        self._write_status()

    def drop_package(self, name: str) -> None:
        """Let dpkg forget a package."""
        self.installed.pop(name, None)
        self._write_status()

    def _write_status(self) -> None:
        self.tree.file("/var/lib/dpkg/status", "".join(self.installed.values()))

    def kernel_installed(self, release: str, headers: bool = True) -> None:
        """Install a kernel."""
        self.tree.file("/lib/modules/%s/kernel/x" % release)
        if headers:
            self.tree.file("/usr/src/linux-headers-%s/Makefile" % release)
            if not self.has("/lib/modules/%s/build" % release):
                self.tree.link("/lib/modules/%s/build" % release, "/usr/src/linux-headers-" + release)

    def package_file(self, data: Optional[bytes] = None, name: str = VENDOR_FILE) -> str:
        """Put a .deb file on the host and return its path."""
        if data is None:
            data = (
                deb()
                if self.family == "vendor"
                else deb(depends="dkms, kmod", version="3.6.5-m5stack1", architecture="arm64")
            )
        path = "/root/" + name
        self.tree.file(path, data)
        return path

    def path(self, path: str) -> pathlib.Path:
        """Return where a path of the host is."""
        return self.tree.path / path.lstrip("/")

    def has(self, path: str) -> bool:
        """Tell whether something stands there."""
        return self.path(path).exists() or self.path(path).is_symlink()

    def text(self, path: str) -> str:
        """Return a file's content."""
        return self.path(path).read_text()

    def remove(self, path: str) -> None:
        """Remove a file or a tree."""
        where = self.path(path)
        if where.is_dir() and not where.is_symlink():
            shutil.rmtree(str(where))
        elif where.exists() or where.is_symlink():
            where.unlink()

    @property
    def loaded(self) -> List[str]:
        """The loaded modules, first loaded first."""
        return [line.split()[0] for line in reversed(self.text("/proc/modules").splitlines())]

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        """Run a command, as the host would."""
        words = list(argv)
        while words[0] == "env" or "=" in words[0]:
            words = words[1:]
        line = " ".join(words)
        self.before(line)
        self.commands.append(line)
        self.limits[line] = timeout_s
        for beginning, (status, output) in self.fail.items():
            if line.startswith(beginning):
                return Ran(status, output)
        handler = getattr(self, "_" + words[0].rpartition("/")[2].replace("-", "_"), None)
        return Ran(0, "") if handler is None else handler(words[1:])

    def _dpkg(self, words: List[str]) -> Ran:
        if "--install" in words:
            paths = words[words.index("--install") + 1 :]
            missing = [path for path in paths if not self.has(path)]
            if missing:
                return Ran(1, "cannot access archive " + missing[0])
            controls = [parse_deb(self.path(path).read_bytes()).control or {} for path in paths]
            return self._install({one.get("Package", "axclhost"): one.get("Version", "1.0.0") for one in controls})
        if "--purge" in words:
            return self._purge(words[words.index("--purge") + 1 :])
        return Ran(2, "unknown option")

    def _dpkg_deb(self, words: List[str]) -> Ran:
        return Ran(0, "Package: axclhost\nVersion: 1.0.0\nArchitecture: all\nDepends: gcc\n")

    def _install(self, packages: Dict[str, str]) -> Ran:
        vendor = self.family == "vendor"
        self.tree.file(SANDBOX, SANDBOX_TEXT + "\n")
        self.tree.file("/etc/udev/rules.d/axcl_host.rules", RULES)
        self.tree.file("/etc/modules-load.d/axcl_pcie.conf", AUTOLOAD)
        self.tree.file(SMI, "")
        self.tree.file("/lib/firmware/axcl/ax650_card.pac", "")
        if vendor:
            self.tree.file("/usr/src/axcl/drv/pcie/driver/Makefile", "all:\n")
            self.tree.file("/usr/src/axcl/build/config.mak", "# c\n")
        else:
            self.tree.file("/usr/src/axclhost-1.0/dkms.conf", 'BUILT_MODULE_NAME[3]="axcl_host"\n')
            self._dkms(["add", "axclhost/1.0"])
        for name, version in packages.items():
            self.add_package(name, version=version, status="install ok half-configured")
            self.tree.file("/var/lib/dpkg/info/%s.list" % name, "/.\n/etc/udev/rules.d/axcl_host.rules\n")
            self.tree.file("/var/lib/dpkg/info/%s.conffiles" % name, "/etc/modules-load.d/axcl_pcie.conf\n")
        if "build" in self.fail:
            self.tree.file(INSTALL_LOG, self.fail["build"][1])
            return Ran(1, "E: build driver fail, please check /var/log/axclhost-install.log")
        if vendor:
            self.tree.file("/usr/src/axcl/out/axcl_linux_arm64/ko/axcl_host.ko", "x")
            self.tree.file("/usr/src/axcl/drv/pcie/driver/host_dev/x.o", "x")
            self.built(KERNEL, "extra")
            for module in MODULES:
                self._modprobe([module])
        else:
            self._dkms(["install", "axclhost/1.0", "-k", KERNEL])
        for name, version in packages.items():
            self.add_package(name, version=version)
        return Ran(0, "Setting up axclhost")

    def _purge(self, names: Sequence[str]) -> Ran:
        for path in (
            "/etc/udev/rules.d/axcl_host.rules",
            "/etc/modules-load.d/axcl_pcie.conf",
            SMI,
            "/lib/firmware/axcl",
            "/usr/src/axclhost-1.0",
            "/usr/src/axcl/drv",
            "/usr/src/axcl/build",
        ):
            self.remove(path)
        for module in MODULES:
            self.remove("/lib/modules/%s/extra/%s.ko" % (KERNEL, module))
        for name in names:
            self.drop_package(name)
            self.remove("/var/lib/dpkg/info/%s.list" % name)
            self.remove("/var/lib/dpkg/info/%s.conffiles" % name)
        return Ran(0, "")

    def built(self, release: str, where: str, srcversion: str = "ABC") -> None:
        """Put the driver's modules to a kernel."""
        for module in MODULES:
            self.tree.file("/lib/modules/%s/%s/%s.ko" % (release, where, module), module_file(release, srcversion))

    def _dkms(self, words: List[str]) -> Ran:
        words = [word for word in words if word != "--force"]
        name, _slash, version = words[1].partition("/")
        tree = "/var/lib/dkms/%s/%s" % (name, version)
        if words[0] == "add":
            if not self.has("/usr/src/%s-%s/dkms.conf" % (name, version)):
                return Ran(2, "Error! Could not find dkms.conf")
            if self.has(tree):
                return Ran(3, "Error! DKMS tree already contains: %s" % words[1])
            self.tree.link(tree + "/source", "/usr/src/%s-%s" % (name, version))
            return Ran(0, "")
        if words[0] == "install":
            if not self.has(tree):
                return Ran(3, "not added")
            release = words[words.index("-k") + 1]
            self.tree.file("%s/%s/aarch64/module/axcl_host.ko" % (tree, release), "x")
            link = "/var/lib/dkms/%s/kernel-%s-aarch64" % (name, release)
            self.remove(link)
            self.tree.link(link, "%s/%s/aarch64" % (version, release))
            self.built(release, "updates/dkms")
            return Ran(0, "")
        if words[0] == "remove":
            if not self.has(tree):
                return Ran(3, "no such module")
            for path in self.path("/var/lib/dkms/" + name).iterdir():
                if path.name.startswith("kernel-"):
                    for module in MODULES:
                        self.remove("/lib/modules/%s/updates/dkms/%s.ko" % (path.name[7:].rpartition("-")[0], module))
                    path.unlink()
            self.remove(tree)
            return Ran(0, "")
        return Ran(2, "unknown action")

    def _modprobe(self, words: List[str]) -> Ran:
        module = words[-1]
        loaded = [line for line in self.text("/proc/modules").splitlines() if line.split()[0] != module]
        if words[0] == "-r":
            self.tree.file("/proc/modules", "".join(line + "\n" for line in loaded))
            self.remove("/dev/" + module)
            if module == "axcl_host":
                for node in ("axcl_host", "msg_userdev", "ax_mmb_dev", "p2p"):
                    self.remove("/dev/" + node)
            return Ran(0, "")
        there = [
            where
            for where in ("updates/dkms", "extra")
            if self.has("/lib/modules/%s/%s/%s.ko" % (KERNEL, where, module))
        ]
        if not there:
            return Ran(1, "modprobe: FATAL: Module %s not found in directory /lib/modules/%s" % (module, KERNEL))
        self.tree.file("/proc/modules", "".join(line + "\n" for line in ["%s 16384 0 - Live 0x0" % module, *loaded]))
        if module == "axcl_host":
            for node in ("axcl_host", "msg_userdev", "ax_mmb_dev", "p2p"):
                self.tree.file("/dev/" + node)
                self.path("/dev/" + node).chmod(0o660)
            bound = "/sys/bus/pci/devices/%s/driver" % hosts.BDF
            if self.has("/sys/bus/pci/devices/" + hosts.BDF) and not self.has(bound):
                self.tree.link(
                    "/sys/devices/%s/%s/driver" % (hosts.SLOT, hosts.BDF),
                    "../../../../../bus/pci/drivers/ax_pcie_dev_host",
                )
        return Ran(0, "")

    def _systemctl(self, words: List[str]) -> Ran:
        if words[-1] == "edgenpu-axcl-load.service" and words[0] in ("start", "restart"):
            if not self.has("/etc/systemd/system/edgenpu-axcl-load.service"):
                return Ran(5, "Unit not found")
            for line in self.text("/etc/systemd/system/edgenpu-axcl-load.service").splitlines():
                if line.startswith("ExecStart="):
                    ran = self._modprobe(line.split()[1:])
                    if ran.status:
                        return Ran(1, "Job for edgenpu-axcl-load.service failed")
        return Ran(0, "")

    def _groupadd(self, words: List[str]) -> Ran:
        self.tree.file("/etc/group", self.text("/etc/group") + "%s:x:990:\n" % words[-1])
        return Ran(0, "")

    def _groupdel(self, words: List[str]) -> Ran:
        lines = [line for line in self.text("/etc/group").splitlines() if not line.startswith(words[-1] + ":")]
        self.tree.file("/etc/group", "".join(line + "\n" for line in lines))
        return Ran(0, "")

    def _apt_mark(self, words: List[str]) -> Ran:
        want = {"hold": "hold", "unhold": "install"}[words[0]]
        for name in words[1:]:
            if name in self.installed:
                lines = self.installed[name].splitlines()
                lines[1] = "Status: %s ok installed" % want
                self.installed[name] = "\n".join(lines) + "\n\n"
        self._write_status()
        return Ran(0, "")

    def _apt_get(self, words: List[str]) -> Ran:
        if "--simulate" in words:
            return Ran(0, "")
        if "download" in words:
            for word in words[words.index("download") + 1 :]:
                if word.partition("=")[2] not in self.versions:
                    return Ran(
                        100,
                        "E: Can't find a source to download version '%s' of '%s'" % tuple(reversed(word.split("="))),
                    )
        if words[-1] == "update":
            options = dict(word.split("=", 1) for word in words if "=" in word)
            where = options.get("Dir::State::Lists", str(self.path("/var/lib/apt/lists")))[len(str(self.tree.path)) :]
            if "Dir::Etc::SourceList" in options:
                self.tree.file(where + "/example.org_apt_dists_axclhost_InRelease", self.release)
            return Ran(0, "Reading package lists...")
        if "--download-only" not in words and "download" not in words:
            name, _equals, version = words[-1].partition("=")
            if name == "axclhost":
                if version and version not in self.versions:
                    return Ran(100, "E: Version '%s' for 'axclhost' was not found" % version)
                return self._install({name: version or self.versions[0]})
        for word in words:
            if word.startswith("linux-headers-"):
                self.kernel_installed(word[len("linux-headers-") :])
            elif word in ("dkms", "gcc", "make", "patch", "kmod"):
                self.add_package(word)
        return Ran(0, "")

    def _apt_cache(self, words: List[str]) -> Ran:
        row = " axclhost | %s | https://example.org/apt axclhost/main arm64 Packages\n"
        return Ran(0, "".join(row % version for version in self.versions))

    def _dmesg(self, words: List[str]) -> Ran:
        return Ran(0, "")
