# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The twin's root file system: a stock Debian for arm64, trimmed so that it boots fast under emulation.

Made in two steps. ``bootstrap`` takes minutes and depends on the package list alone, so its archive is kept. ``main``
(run as root of a user namespace for unprivileged users) turns the archive into a disk image and an initramfs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Iterable

from . import apt
from .host import Log, TwinError, is_foreign

PACKAGES = (
    "linux-image-arm64",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "pciutils",
    "irqbalance",
    "procps",
    "iproute2",
)
#: Documentation and translations: nothing on a twin reads them, and unpacking them under emulation takes time.
EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
BOOTSTRAP_OPTIONS = (
    "--variant=minbase",
    "--architectures=arm64",
    "--components=main",
    '--aptopt=Apt::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
)

GUEST = Path(__file__).parent / "guest"
DISK_MB = 2560
#: Loaded by the initramfs, in this order after what they need: the way to the disk and what a real board has built in.
INITRAMFS_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "ext4", "crc32c_generic")

#: Units that do nothing useful on a twin and cost boot time.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
    "getty@tty1.service",
    "console-getty.service",
    "serial-getty@ttyAMA0.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-hwdb-update.service",
    "ldconfig.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-firstboot.service",
    "systemd-sysusers.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-boot-system-token.service",
    "systemd-logind.service",
    "systemd-update-utmp-runlevel.service",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
)

#: The host's trusted authorities. The twin gets its host's: installing the package takes a quarter of the whole
#: bootstrap under emulation.
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

_FILES = {
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/modprobe.d/twin.conf": "# Their devices have registers only as far as the PCI core looks at them.\n"
    "blacklist nvme\nblacklist r8169\n",
    "etc/ssh/sshd_config.d/twin.conf": "UseDNS no\nPermitRootLogin prohibit-password\nGSSAPIAuthentication no\n"
    "X11Forwarding no\nPrintLastLog no\nMaxSessions 50\nMaxStartups 50:30:100\n",
    "etc/systemd/journald.conf.d/twin.conf": "[Journal]\nStorage=volatile\n",
    # Testing its configuration before every start doubles the time that the server takes to come up.
    "etc/systemd/system/ssh.service.d/twin.conf": "[Service]\nExecStartPre=\n",
}


def bootstrap(log: Log, release: str, packages: Iterable[str], target: Path) -> None:
    """Write the archive of an arm64 Debian with these packages, of the host's own mirror, to ``target``."""
    if is_foreign():
        _enable_foreign_programs(log)
    options = list(BOOTSTRAP_OPTIONS)
    settings = target.with_name("apt.conf")
    settings.write_text(apt.host_settings(), encoding="utf-8")
    options.append(f"--aptopt={settings}")
    stanzas = sources_text(release)
    arguments = [release, str(target)]
    if stanzas:
        arguments.append("-")
    log.run(
        ["mmdebstrap", *options, f"--include={','.join(packages)}", *arguments],
        stdin=stanzas,
        # Debian's own initramfs would take a minute under emulation and is not used.
        env={"INITRD": "No"},
        failure="mmdebstrap could not make the root file system; is the package mirror reachable?",
    )
    settings.unlink()


def sources_text(release: str) -> str:
    """The host's Debian sources, but of the given release, in deb822 form; empty: leave the choice to mmdebstrap."""
    return "\n".join(source.stanza() for source in apt.host_sources(release))


def _enable_foreign_programs(log: Log) -> None:
    if subprocess.run(["arch-test", "arm64"], capture_output=True, check=False).returncode == 0:
        return
    if os.geteuid() == 0:
        if "binfmt_misc /proc" not in Path("/proc/mounts").read_text(encoding="utf-8"):
            log.run(
                ["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"],
                failure="binfmt_misc could not be mounted",
            )
        log.run(["update-binfmts", "--enable", "qemu-aarch64"], failure="qemu-aarch64 could not be enabled")
    log.run(
        ["arch-test", "arm64"],
        failure="this host does not run arm64 programs; as root: update-binfmts --enable qemu-aarch64",
    )


def installed_kernel(archive: Path) -> tuple[str, str]:
    """Of the archive: what uname -r will say, and the Debian version of the kernel's package."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("./var/lib/dpkg/status")
        if member is None:
            raise TwinError(f"{archive} holds no package list; remove its folder and build again.")
        status = member.read().decode("utf-8")
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        name = fields.get("Package", "")
        if name.startswith("linux-image-") and name[len("linux-image-") :][0].isdigit():
            return name[len("linux-image-") :], fields["Version"]
    raise TwinError(f"{archive} holds no kernel; remove its folder and build again.")


def main(arguments: list[str]) -> int:
    """Archive -> disk image, kernel and initramfs. Runs in a process of its own, as root of some namespace."""
    parser = argparse.ArgumentParser(prog="twin.rootfs")
    parser.add_argument(
        "plan", type=Path, help="JSON: archive, output, kernel, modules, driver, hostname, public_key, init, wake"
    )
    plan = json.loads(parser.parse_args(arguments).plan.read_text(encoding="utf-8"))
    output = Path(plan["output"])
    root = output / "root"
    root.mkdir()
    _run("tar", "-C", str(root), "-xf", plan["archive"], "--numeric-owner", "--exclude=./dev/*")
    customise(root, plan["hostname"], plan["public_key"])
    modules = [Path(module) for module in plan["modules"]]
    if plan["driver"]:
        _install_driver(root, plan["kernel"], modules)
    _install_program(Path(plan["wake"]), root / "usr/libexec/twin-wake")
    make_boot_files(output, root, plan["kernel"], modules, Path(plan["init"]))
    _run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal,^metadata_csum",
        "-E",
        "lazy_itable_init=1,nodiscard",
        "-d",
        str(root),
        str(output / "root.img"),
        f"{DISK_MB}M",
    )
    shutil.rmtree(root)
    return 0


def customise(root: Path, hostname: str, public_key: str) -> None:
    """Names, keys, users and settings of the twin in an unpacked root file system."""
    for name, text in _FILES.items():
        _write(root / name, text)
    _write(root / "etc/hostname", f"{hostname}\n")
    _write(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
    _write(root / "etc/machine-id", os.urandom(16).hex() + "\n")
    settings = apt.host_settings()
    if settings:
        _write(root / "etc/apt/apt.conf.d/90host", settings)
    pip_settings = Path("/etc/pip.conf")
    if pip_settings.exists():
        shutil.copy(pip_settings, root / "etc/pip.conf")
    if Path("/", CA_BUNDLE).exists():
        _write(root / CA_BUNDLE, Path("/", CA_BUNDLE).read_text(encoding="utf-8"))
        _link(root / "usr/lib/ssl/cert.pem", f"/{CA_BUNDLE}")
    _authorise(root / "root", public_key, 0, 0)
    _add_user(root, "owner", 1000)
    _authorise(root / "home/owner", public_key, 1000, 1000)
    units = root / "etc/systemd/system"
    for unit in MASKED_UNITS:
        _link(units / unit, "/dev/null")
    # Starts when something speaks to its socket; nothing needs it at boot.
    _link(units / "multi-user.target.wants/dbus.service", "/dev/null")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")
    pam = root / "etc/pam.d/sshd"
    lines = pam.read_text(encoding="utf-8").splitlines(keepends=True)
    pam.write_text(
        "".join(line for line in lines if "pam_motd" not in line and "pam_mail" not in line), encoding="utf-8"
    )


def _add_user(root: Path, name: str, number: int) -> None:
    """An unprivileged user without a password and without sudo."""
    for file, line in (
        ("passwd", f"{name}:x:{number}:{number}::/home/{name}:/bin/bash"),
        ("group", f"{name}:x:{number}:"),
        ("shadow", f"{name}:*:19000:0:99999:7:::"),
        ("gshadow", f"{name}:!::"),
    ):
        with (root / "etc" / file).open("a", encoding="ascii") as stream:
            stream.write(line + "\n")
    home = root / "home" / name
    shutil.copytree(root / "etc/skel", home)
    for path in (home, *home.rglob("*")):
        os.chown(path, number, number)


def _authorise(home: Path, public_key: str, user: int, group: int) -> None:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / "authorized_keys", public_key)
    for path in (folder, folder / "authorized_keys"):
        os.chown(path, user, group)


def _install_driver(root: Path, kernel: str, modules: Iterable[Path]) -> None:
    """The card's driver goes where the vendor's package puts it; the board's own modules stay in the initramfs."""
    _write(root / "etc/modules-load.d/axcl_pcie.conf", "ax_pcie_host_dev\n")
    folder = root / "usr/lib/modules" / kernel / "extra"
    folder.mkdir(exist_ok=True)
    for module in modules:
        if module.name.startswith("ax_"):
            shutil.copy(module, folder / module.name)
    _run("depmod", "-b", str(root), kernel)


def make_boot_files(output: Path, root: Path, kernel: str, modules: list[Path], init: Path) -> None:
    """What QEMU boots a kernel of the root file system from, as a boot loader would have it from there."""
    shutil.copy(root / "boot" / f"vmlinuz-{kernel}", output / "vmlinuz.packed")
    _unpack_kernel(output / "vmlinuz.packed", output / "vmlinuz")
    make_initramfs(output, root, kernel, modules, init)


def make_initramfs(output: Path, root: Path, kernel: str, modules: list[Path], init: Path) -> None:
    """An uncompressed initramfs: unpacking a compressed one costs more than reading a bigger one."""
    tree = output / "initramfs"
    for folder in ("modules", "proc", "dev", "root"):
        (tree / folder).mkdir(parents=True)
    _install_program(init, tree / "init")
    paths = _with_dependencies(root, kernel, INITRAMFS_MODULES)
    paths += [module for module in modules if module.name.startswith("twin_")]
    order = []
    for path in paths:
        # The kernel cannot be asked to unpack them before it is known what it can unpack.
        packed = path.suffix == ".xz"
        target = tree / "modules" / (path.stem if packed else path.name)
        target.write_bytes(lzma.decompress(path.read_bytes()) if packed else path.read_bytes())
        order.append(f"/modules/{target.name}\n")
    _write(tree / "modules/order", "".join(order))
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    with (output / "initrd").open("wb") as stream:
        subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"],
            cwd=tree,
            check=True,
            input="\n".join(names).encode(),
            stdout=stream,
        )
    shutil.rmtree(tree)


def _with_dependencies(root: Path, kernel: str, names: Iterable[str]) -> list[Path]:
    paths: list[Path] = []
    for name in names:
        listing = _run("modprobe", "-d", str(root), "-S", kernel, "--show-depends", name)
        for line in listing.splitlines():
            action, _unused, path = line.partition(" ")
            if action == "insmod" and Path(path.strip()) not in paths:
                paths.append(Path(path.strip()))
    return paths


def _unpack_kernel(packed: Path, target: Path) -> None:
    """QEMU boots the bare image; Debian's may be gzipped."""
    if packed.read_bytes()[:2] == b"\x1f\x8b":
        target.write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    else:
        packed.rename(target)


def _install_program(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.write_text(text, encoding="utf-8")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
