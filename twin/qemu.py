# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU as the twin's hardware: its command line, and the two sockets through which a running one is reached."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Sequence

from .board import Board
from .host import TwinError

PROGRAM = "qemu-system-aarch64"
#: Names of the files of a built twin, in its folder of the cache.
KERNEL, INITRD, DEVICE_TREE, CONFIG_SPACE = "vmlinuz", "initrd", "board.dtb", "pci.bin"
ROOT_IMAGE, SNAPSHOT_DISK, SNAPSHOT_RAM, SNAPSHOT_STATE = "root.img", "snapshot.qcow2", "ram", "state"

#: A write here raises the interrupt of an event id, for the DeviceID of whoever writes: GITS_TRANSLATER of the ITS.
GITS_TRANSLATER = 0x8090040

COMMAND_LINE = (
    "console=ttyAMA0",
    "root=/dev/vda",
    "rw",
    "quiet",
    "loglevel=4",
    "net.ifnames=0",
    "mitigations=off",
    "nokaslr",
    "audit=0",
    "apparmor=0",
    "systemd.show_status=0",
    "rcupdate.rcu_expedited=1",
    "cryptomgr.notests",
)


def version() -> str:
    """QEMU's own first line; snapshots are read only by the version that wrote them."""
    try:
        result = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TwinError(
            f"{PROGRAM} does not run ({error}); install it with: python -m twin install-requirements"
        ) from error
    return result.stdout.splitlines()[0]


def machine_arguments(board: Board, ram: str = "") -> list[str]:
    """The machine without its devices; ``ram`` names a memory backend."""
    machine = "virt,gic-version=3,its=on" + (f",memory-backend={ram}" if ram else "")
    return [
        PROGRAM,
        "-nodefaults",
        "-display",
        "none",
        "-M",
        machine,
        "-cpu",
        "cortex-a76",
        "-smp",
        str(board.cpu_count),
        "-m",
        f"{board.machine_memory_mb}M",
    ]


def ram_arguments(board: Board, path: Path | None, shared: bool) -> list[str]:
    """RAM in a file that stays (``shared``), a private copy of such a file, or without a file."""
    size = f"size={board.machine_memory_mb}M"
    if path is None:
        return ["-object", f"memory-backend-ram,id=ram0,{size},reserve=off"]
    sharing = "share=on" if shared else "share=off,reserve=off"
    return ["-object", f"memory-backend-file,id=ram0,{size},mem-path={path},{sharing}"]


def device_arguments(board: Board, built: Path, boot: Path, run: Path, disk: Path, ssh_port: int) -> list[str]:
    """Everything else.

    ``built`` is the twin's folder of the cache, ``boot`` the one that kernel and initramfs are in, ``run`` that of the
    running instance.
    """
    return [
        "-accel",
        "tcg,thread=multi,tb-size=256",
        "-kernel",
        str(boot / KERNEL),
        "-initrd",
        str(boot / INITRD),
        "-dtb",
        str(built / DEVICE_TREE),
        "-append",
        " ".join(COMMAND_LINE),
        "-device",
        f"loader,file={built / CONFIG_SPACE},addr={board.hidden_base:#x},force-raw=on",
        "-drive",
        f"if=none,id=disk0,file={disk},format=qcow2,cache=unsafe,discard=unmap",
        "-device",
        "virtio-blk-device,drive=disk0,bus=virtio-mmio-bus.0",
        "-netdev",
        f"user,id=net0,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device",
        "virtio-net-device,netdev=net0,bus=virtio-mmio-bus.1",
        "-device",
        "virtio-rng-device,bus=virtio-mmio-bus.2",
        "-serial",
        f"file:{run / 'console.log'}",
        "-qmp",
        f"unix:{run / 'qmp.sock'},server=on,wait=off",
        "-qtest",
        f"unix:{run / 'qtest.sock'},server=on,wait=off",
        "-qtest-log",
        "none",
    ]


class Qmp:
    """QEMU's monitor protocol: JSON, one object per line."""

    def __init__(self, path: Path, timeout_s: float = 60) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._stream.readline()
        self.command("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a command; its return value. TwinError: QEMU refused it. EOFError: QEMU is gone."""
        self._stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._stream.flush()
        for line in self._stream:
            answer = json.loads(line)
            if "error" in answer:
                raise TwinError(f"QEMU refused {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise EOFError(f"QEMU ended during {name}")

    def _exclude_ram(self) -> None:
        # Shared RAM stays where it is, in its file: only the devices' state is written and read.
        self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def save(self, state: Path) -> None:
        """Freeze the machine and write all but its RAM to a file."""
        self.command("stop")
        self._exclude_ram()
        self.command("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
        self.command("migrate", uri=f"exec:cat > '{state}'")
        self._wait_for("query-migrate", "completed", 120)

    def restore(self, state: Path) -> None:
        """Read what ``save`` wrote into a machine that waits for it, and let it run."""
        self._exclude_ram()
        self.command("migrate-incoming", uri=f"exec:cat '{state}'")
        self._wait_for("query-migrate", "completed", 120)
        self.command("cont")

    def _wait_for(self, query: str, status: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            now = self.command(query).get("status")
            if now == status:
                return
            if now in ("failed", "cancelled"):
                break
            time.sleep(0.02)
        raise TwinError(f"QEMU's state did not transfer: {self.command(query)}")


class Qtest:
    """Physical memory of a running machine, by way of QEMU's test protocol."""

    def __init__(self, path: Path, timeout_s: float = 30) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw", encoding="ascii", newline="\n")

    def __enter__(self) -> Qtest:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def _command(self, line: str) -> str:
        self._stream.write(line + "\n")
        self._stream.flush()
        for answer in self._stream:
            if answer.startswith("OK"):
                return answer[2:].strip()
            if answer.startswith(("FAIL", "ERR")):
                raise TwinError(f"QEMU refused {line}: {answer.strip()}")
        raise EOFError(f"QEMU ended during {line}")

    def write32(self, address: int, value: int) -> None:
        self._command(f"writel {address:#x} {value:#x}")

    def write16(self, address: int, value: int) -> None:
        self._command(f"writew {address:#x} {value:#x}")

    def fill(self, address: int, size: int, value: int) -> None:
        self._command(f"memset {address:#x} {size:#x} {value:#x}")

    def read32(self, address: int) -> int:
        return int(self._command(f"readl {address:#x}"), 0)


@contextmanager
def connected(kind: type[Qmp], path: Path, timeout_s: float = 20) -> Iterator[Qmp]:
    """A monitor connection as soon as the socket answers."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection = kind(path)
            break
        except (ConnectionRefusedError, FileNotFoundError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    with connection:
        yield connection


def start(arguments: Sequence[str], run: Path) -> None:
    """Start QEMU in the background. TwinError: it does not come up; the message holds QEMU's own."""
    command = [*arguments, "-daemonize", "-pidfile", str(run / "pid")]
    (run / "command").write_text("\n".join(command) + "\n", encoding="utf-8")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TwinError(f"QEMU did not start: {result.stderr.strip() or result.stdout.strip()}")
