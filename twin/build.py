# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to a frozen, booted twin in the cache, from which clones resume in seconds.

Three folders come out, each made under a temporary name and renamed when complete, so a killed build leaves no half
one: ``rootfs-<hash>`` (archive of the root file system, kernel headers) for each release, ``image-<hash>`` (disk image,
kernel, initramfs, key) for what boots alike, and ``<board>-<hash>`` (device tree, configuration space, snapshot).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from . import apt, devicetree, modules, pciconfig, qemu, rootfs
from .board import BOARDS, Board, files, load_named, names
from .host import (
    Log,
    TwinError,
    cache_root,
    checkout_state,
    is_foreign,
    locked,
    missing_packages,
    remove_tree,
    user_namespace,
)
from .instance import KEY_FILE, Instance

PACKAGE = Path(__file__).parent
#: What an image is made from, besides the root file system; what a board's twin is, besides its image and board files.
_IMAGE_SOURCES = ("apt.py", "modules.py", "rootfs.py", "guest/*.c", "kernel/*.c", "kernel/Makefile")
_TWIN_SOURCES = ("board.py", "build.py", "devicetree.py", "pciconfig.py", "qemu.py")
#: Files of an image, which the twins made from it link to.
_IMAGE_FILES = (KEY_FILE, qemu.ROOT_IMAGE, qemu.KERNEL, qemu.INITRD)
#: Temporary names of folders that are not complete yet.
_UNFINISHED = ".building-"


def _hash(parts: Iterable[str | Path]) -> str:
    """Of texts, and of files with their names."""
    texts = [
        f"{part.relative_to(PACKAGE)}\n".encode() + part.read_bytes() if isinstance(part, Path) else part.encode()
        for part in parts
    ]
    return hashlib.sha256(b"\n".join(texts)).hexdigest()[:16]


def _sources(patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]


def _packages(board: Board) -> tuple[str, ...]:
    return (*rootfs.PACKAGES, *board.packages)


def rootfs_folder(board: Board) -> Path:
    """Where a board's root file system is, or would be. Boards of one release and with the same packages share it."""
    return cache_root() / f"rootfs-{_hash((board.release, *_packages(board), *rootfs.BOOTSTRAP_OPTIONS))}"


def image_folder(board: Board) -> Path:
    """Where what a board boots from is, or would be. Boards that differ in hardware only have one between them."""
    parts: list[str | Path] = [rootfs_folder(board).name, board.hostname, str(board.driver)]
    parts += _sources(_IMAGE_SOURCES)
    return cache_root() / f"image-{_hash(parts)}"


def built_folder(board: Board) -> Path:
    """Where a board's twin is, or would be."""
    described = files(BOARDS / f"{board.name}.yml")
    parts: list[str | Path] = [image_folder(board).name, qemu.version(), *described, *_sources(_TWIN_SOURCES)]
    return cache_root() / f"{board.name}-{_hash(parts)}"


def ensure_built(board_name: str) -> Path:
    """The folder of the built twin, built now if there is none. TwinError: it could not be built."""
    board = load_named(board_name)
    folder = built_folder(board)
    if folder.exists():
        return folder
    missing = missing_packages()
    if missing:
        raise TwinError(f"This host lacks {' '.join(missing)}; install them with: python -m twin install-requirements")
    with locked(cache_root() / "build.lock"):
        if not folder.exists():
            log = Log(checkout_state() / "build.log")
            for leftover in cache_root().glob(f"{_UNFINISHED}*"):
                remove_tree(leftover)
            image = _ensure_image(log, board, _ensure_rootfs(log, board))
            with _completed(folder) as work:
                _build(log, board, image, work)
    return folder


@contextmanager
def _completed(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when everything in it is done, and vanishes if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        yield work
        work.rename(folder)
    finally:
        if work.exists():
            remove_tree(work)


def _ensure_rootfs(log: Log, board: Board) -> Path:
    folder = rootfs_folder(board)
    if folder.exists():
        return folder
    with _completed(folder) as work:
        archive = work / "rootfs.tar"
        with log.step(f"root file system of {board.release} (the long one: several minutes)"):
            rootfs.bootstrap(log, board.release, _packages(board), archive)
        kernel, version = rootfs.installed_kernel(archive)
        with log.step(f"headers of kernel {kernel}"):
            sources = rootfs.sources_text(board.release) or _archive_sources(archive, board.release)
            modules.fetch_headers(log, work / "headers", kernel, version, sources)
        (work / "kernel.json").write_text(json.dumps({"kernel": kernel, "version": version}) + "\n", encoding="ascii")
    return folder


def _archive_sources(archive: Path, release: str) -> str:
    """The sources that mmdebstrap chose by itself and left in the archive, in deb822 form."""
    listing = subprocess.run(
        ["tar", "-xOf", str(archive), "--wildcards", "./etc/apt/sources.list*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return "\n".join(source.stanza() for source in apt.parse_one_line(listing, release))


def _ensure_image(log: Log, board: Board, root_folder: Path) -> Path:
    folder = image_folder(board)
    if folder.exists():
        return folder
    kernel = json.loads((root_folder / "kernel.json").read_text(encoding="ascii"))["kernel"]
    with _completed(folder) as work:
        log.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "twin", "-f", str(work / KEY_FILE)],
            failure="ssh-keygen made no key",
        )
        with log.step("kernel modules and small programs"):
            built_modules = modules.build(log, root_folder / "headers", kernel, work / "modules")
            for program in ("init", "wake"):
                _compile(log, rootfs.GUEST / f"{program}.c", work / program)
        with log.step("disk image and initramfs"):
            plan = work / "plan.json"
            plan.write_text(
                json.dumps(
                    {
                        "archive": str(root_folder / "rootfs.tar"),
                        "output": str(work),
                        "kernel": kernel,
                        "modules": [str(path) for path in built_modules],
                        "driver": board.driver,
                        "hostname": board.hostname,
                        "public_key": (work / f"{KEY_FILE}.pub").read_text(encoding="ascii"),
                        "init": str(work / "init"),
                        "wake": str(work / "wake"),
                    }
                ),
                encoding="utf-8",
            )
            log.run(
                [*user_namespace(), sys.executable, "-m", f"{__package__}.rootfs", str(plan)],
                cwd=PACKAGE.parent,
                failure="the disk image could not be made",
            )
    return folder


def ensure_kernel(instance: Instance, release: str) -> Path:
    """The folder with what a running twin boots another kernel from: one that its root file system holds.

    As of a board, what is built into the kernel there is in the initramfs here, built for that kernel.
    TwinError: there is no such kernel, or Debian's packages of it cannot be had any more.
    """
    kernel = f"sha256sum < /boot/vmlinuz-{release}"
    asked = instance.ssh(f"{kernel} && dpkg-query --show --showformat='${{Version}}' linux-image-{release}")
    if asked.returncode:
        raise TwinError(f"{instance.name} holds no kernel {release} of Debian's: {asked.stderr.strip()}")
    folder = cache_root() / f"kernel-{_hash((release, asked.stdout, *_sources(_IMAGE_SOURCES)))}"
    with locked(cache_root() / "build.lock"):
        if not folder.exists():
            log = Log(checkout_state() / "build.log")
            with _completed(folder) as work, log.step(f"kernel {release} and what belongs to it"):
                _build_kernel(log, instance, release, asked.stdout.split()[-1], work)
    return folder


def _build_kernel(log: Log, instance: Instance, release: str, version: str, work: Path) -> None:
    board, headers, root = instance.board, work / "headers", work / "root"
    archive = rootfs_folder(board) / "rootfs.tar"
    sources = rootfs.sources_text(board.release) or _archive_sources(archive, board.release)
    modules.fetch_headers(log, headers, release, version, sources)
    built_modules = modules.build(log, headers, release, work / "modules")
    _compile(log, rootfs.GUEST / "init.c", work / "init")
    root.mkdir()
    names = " ".join(rootfs.INITRAMFS_MODULES)
    needed = f"modprobe --set-version {release} --show-depends --all {names} | sed -n 's:^insmod /::p' | sort -u"
    instance.fetch(f"boot/vmlinuz-{release} lib/modules/{release}/modules.* $({needed})", root)
    rootfs.make_boot_files(work, root, release, built_modules, work / "init")
    for folder in (headers, root):
        shutil.rmtree(folder)


def _build(log: Log, board: Board, image: Path, work: Path) -> None:
    for name in _IMAGE_FILES:
        (work / name).symlink_to(Path("..", image.name, name))
    with log.step("device tree and PCIe configuration space"):
        (work / qemu.CONFIG_SPACE).write_bytes(pciconfig.board_image(board))
        _device_tree(log, board, work)
    with log.step("first boot and snapshot"):
        _freeze(log, board, work)


def _compile(log: Log, source: Path, target: Path) -> None:
    compiler = "aarch64-linux-gnu-gcc" if is_foreign() else "gcc"
    log.run(
        [compiler, "-Wall", "-O2", "-static", "-o", str(target), str(source)], failure=f"{source.name} did not compile"
    )


def _device_tree(log: Log, board: Board, work: Path) -> None:
    own, source = work / "qemu.dtb", work / "board.dts"
    arguments = qemu.machine_arguments(board)
    arguments[arguments.index("-M") + 1] += f",dumpdtb={own}"
    log.run(arguments, failure="QEMU did not write its device tree")
    text = log.run(["dtc", "-q", "-I", "dtb", "-O", "dts", str(own)], failure="dtc did not read QEMU's device tree")
    source.write_text(devicetree.append_board(text, board), encoding="utf-8")
    log.run(
        ["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", str(work / qemu.DEVICE_TREE), str(source)],
        failure="dtc refused the board's device tree",
    )


def _freeze(log: Log, board: Board, work: Path) -> None:
    """Boot once, check, and keep the running machine as disk, RAM and state."""
    disk, ram = work / qemu.SNAPSHOT_DISK, work / qemu.SNAPSHOT_RAM
    log.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", qemu.ROOT_IMAGE, str(disk)],
        cwd=work,
        failure="qemu-img made no disk",
    )
    instance = Instance.boot_for_snapshot(board, work, disk, ram)
    try:
        instance.wait_for_ssh(300)
        # In one go, for every login takes seconds where other jobs run.
        script = "".join(f"{command} || echo '{meaning}'\n" for command, meaning in self_checks(board))
        result = instance.ssh(script)
        if result.returncode or result.stdout:
            console = log.path.with_name("build-console.log")
            shutil.copy(instance.run / "console.log", console)
            problems = ", ".join((result.stdout + result.stderr).splitlines())
            raise TwinError(f"The twin boots but is not sound: {problems}. Its console: {console}.")
        # What every user runs first is then in the clones' page cache.
        instance.ssh("python3 -c 'import json, subprocess, tempfile, zipfile, platform'; lspci; sudo -V; sync")
        with qemu.connected(qemu.Qmp, instance.run / "qmp.sock") as monitor:
            monitor.save(work / qemu.SNAPSHOT_STATE)
    finally:
        instance.stop()


def self_checks(board: Board) -> list[tuple[str, str]]:
    """Shell tests that a twin passes before it is frozen, each with what it means if it fails."""
    checks = [
        ("systemctl is-system-running --wait > /dev/null", "a unit failed at boot"),
        ("systemctl is-active -q irqbalance", "irqbalance does not run"),
    ]
    for cluster in board.clusters:
        policy = f"/sys/devices/system/cpu/cpufreq/policy{cluster.cpus[0]}"
        checks.append((f"test -d {policy}", f"there is no {policy}"))
    for function in board.functions:
        where = f"/sys/bus/pci/devices/{function.bdf}"
        checks.append((f"test -d {where}", f"no device at {function.bdf}"))
        if function.device.event_counter and board.driver:
            checks.append((f"test -d {where}/msi_irqs", f"the driver of {function.bdf} took no MSI"))
    return checks


def prune(keep_folders: Iterable[Path]) -> list[Path]:
    """Remove what is cached and what the present sources do not lead to; the folders.

    ``keep_folders`` are those of running twins, which go on needing their key and their disk.
    """
    root = cache_root()
    if not root.exists():
        return []
    kept = set()
    for board in map(load_named, names()):
        kept |= {folder(board).name for folder in (built_folder, image_folder, rootfs_folder)}
    for folder in keep_folders:
        kept |= {folder.name, (folder / KEY_FILE).resolve().parent.name}
    removed = []
    with locked(root / "build.lock"):
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and folder.name not in kept:
                remove_tree(folder)
                removed.append(folder)
    return removed
