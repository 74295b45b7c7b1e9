# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running twin: its process, its sockets, its place in the checkout's ssh configuration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Sequence

from . import pciconfig, qemu
from .board import Board, Link
from .host import TwinError, checkout_state, locked, runtime_root

KEY_FILE = "id_ed25519"
STATE_FILE = "state.json"
#: Name of the twin that a build boots. There is one at a time; a killed build may leave it running.
BUILD_NAME = ".build"
_PORT_TRIES = 20
#: The word of a port's registers that ends with Bridge Control, and the bit that holds the bus below in reset.
_BRIDGE_CONTROL, _BUS_RESET = 0x3C, 0x40 << 16


def ssh_options(key: Path) -> dict[str, str]:
    """How to log in to a twin: host keys are shared by all clones and mean nothing."""
    return {
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ConnectTimeout": "30",
    }


def ssh_command(key: Path, port: int, user: str = "root") -> list[str]:
    options = [part for name, value in ssh_options(key).items() for part in ("-o", f"{name}={value}")]
    return ["ssh", *options, "-p", str(port), f"{user}@127.0.0.1"]


class Instance:
    """One QEMU process and its folder below the runtime folder."""

    def __init__(self, name: str, board: Board, built: Path, run: Path, port: int) -> None:
        self.name = name
        self.board = board
        self.built = built
        self.run = run
        self.port = port

    # -- starting -----------------------------------------------------------------------------------------------------

    @classmethod
    def boot_for_snapshot(cls, board: Board, work: Path, disk: Path, ram: Path) -> Instance:
        """Boot the twin that a build freezes: its RAM is a file that stays."""
        instance = cls(BUILD_NAME, board, work, runtime_root() / BUILD_NAME, 0)
        instance.stop()
        instance._start(disk, qemu.ram_arguments(board, ram, shared=True), [])
        return instance

    @classmethod
    def start(cls, name: str, board: Board, built: Path, *, cold: bool, port: int = 0) -> Instance:
        """Resume a clone from the snapshot, or boot one from the disk image. TwinError: it does not come up."""
        instance = cls(name, board, built, runtime_root() / name, port)
        disk = checkout_state() / "disks" / f"{name}.qcow2"
        disk.parent.mkdir(exist_ok=True)
        base, base_format = (qemu.ROOT_IMAGE, "raw") if cold else (qemu.SNAPSHOT_DISK, "qcow2")
        result = subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", str(built / base), str(disk)],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise TwinError(f"qemu-img made no disk for {name}: {result.stderr.strip()}")
        if cold:
            instance._start(disk, qemu.ram_arguments(board, None, shared=False), [])
            return instance
        instance._start(
            disk, qemu.ram_arguments(board, built / qemu.SNAPSHOT_RAM, shared=False), ["-incoming", "defer"]
        )
        try:
            with qemu.connected(qemu.Qmp, instance.run / "qmp.sock") as monitor:
                monitor.restore(built / qemu.SNAPSHOT_STATE)
            instance._wake()
        except BaseException:
            instance.stop()
            raise
        return instance

    def _start(self, disk: Path, ram: Sequence[str], extra: Sequence[str], boot: Path | None = None) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(mode=0o700)
        error = TwinError("no free port")
        wanted = self.port
        for _unused in range(_PORT_TRIES):
            # Between asking for a free port and QEMU taking it someone else may: then QEMU says so, and we ask again.
            self.port = wanted or _free_port()
            arguments = [
                *qemu.machine_arguments(self.board, "ram0"),
                *ram,
                *qemu.device_arguments(self.board, self.built, boot or self.built, self.run, disk, self.port),
                *extra,
            ]
            try:
                qemu.start(arguments, self.run)
                break
            except TwinError as problem:
                error = problem
                if "host forwarding" not in str(problem) or wanted:
                    shutil.rmtree(self.run, ignore_errors=True)
                    raise
        else:
            shutil.rmtree(self.run, ignore_errors=True)
            raise error
        pid = int((self.run / "pid").read_text(encoding="ascii"))
        state = {
            "name": self.name,
            "board": self.board.name,
            "built": str(self.built),
            "port": self.port,
            "pid": pid,
            "started": _start_time(pid),
            "disk": str(disk),
        }
        temporary = self.run / f"{STATE_FILE}.new"
        temporary.write_text(json.dumps(state) + "\n", encoding="utf-8")
        temporary.rename(self.run / STATE_FILE)

    def _wake(self) -> None:
        """Set the clock of a resumed clone, and give it random numbers of its own."""
        deadline = time.monotonic() + 120
        while True:
            with subprocess.Popen(
                [*self._ssh(), "/usr/libexec/twin-wake"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                if process.stdout is not None:
                    process.stdout.readline()
                # Logging in took its time; only now the time of day can be told.
                message = struct.pack("<Q", int(time.time() * 1e6)) + os.urandom(64)
                _unused, errors = process.communicate(message)
            if process.returncode == 0:
                return
            if process.returncode != 255 or time.monotonic() > deadline:
                raise TwinError(
                    f"{self.name} was resumed but does not answer: {errors.decode(errors='replace').strip()}"
                )

    # -- use ----------------------------------------------------------------------------------------------------------

    @property
    def key(self) -> Path:
        return self.built / KEY_FILE

    def _ssh(self, user: str = "root") -> list[str]:
        return ssh_command(self.key, self.port, user)

    def ssh(
        self, command: str, *, user: str = "root", timeout_s: float = 300, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the twin."""
        return subprocess.run(
            [*self._ssh(user), command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
        )

    def wait_for_ssh(self, timeout_s: float, boot_id_not: str = "") -> None:
        """Wait until the twin answers, and (after a reboot) has another boot id. TwinError: it does not in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise TwinError(f"{self.name} ended while booting; its console: {self.run / 'console.log'}")
            try:
                result = self.ssh("cat /proc/sys/kernel/random/boot_id", timeout_s=20)
            except subprocess.TimeoutExpired:
                continue
            if result.returncode == 0 and result.stdout.strip() != boot_id_not:
                return
            time.sleep(0.2)
        raise TwinError(
            f"{self.name} does not answer within {timeout_s:.0f} s; its console: {self.run / 'console.log'}"
        )

    def fetch(self, words: str, target: Path) -> None:
        """Copy files of the twin into a folder; ``words`` are what a shell in / makes their names of."""
        command = [*self._ssh(), f"cd / && tar --create --dereference --file=- {words}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
            unpacked = subprocess.run(["tar", "-C", str(target), "-xf", "-"], stdin=source.stdout, check=False)
        if source.returncode or unpacked.returncode:
            raise TwinError(f"{self.name} did not hand over {words}")

    def power_cycle(self, boot: Path, timeout_s: float = 300) -> None:
        """Switch the machine off and on again, with the kernel and the initramfs in ``boot``, and wait for its ssh."""
        state = _read_state(self.run)
        if state is None:
            raise TwinError(f"{self.name} does not run")
        self.ssh("systemctl poweroff")
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline:
                raise TwinError(f"{self.name} does not switch itself off within {timeout_s:.0f} s")
            time.sleep(0.1)
        self._start(Path(state["disk"]), qemu.ram_arguments(self.board, None, shared=False), [], boot)
        self.wait_for_ssh(timeout_s)

    def reboot_and_wait(self, timeout_s: float = 300) -> None:
        """Reboot from inside, with the same kernel, and wait for the next boot's ssh."""
        before = self.ssh("cat /proc/sys/kernel/random/boot_id; systemctl reboot")
        self.wait_for_ssh(timeout_s, boot_id_not=before.stdout.split("\n")[0].strip())

    def raise_msi(self, count: int = 1, event: int = 0, patience_s: float = 2.0) -> int:
        """Raise MSIs of the board's outside endpoint, as its hardware would; how many its driver took.

        An interrupt that comes while the one before is still pending is lost in it, so each waits until the driver
        has counted the one before in the card's event counter. Once the driver has not answered for ``patience_s``
        (it is not loaded, the vector is masked or not allocated) the rest is sent without waiting.
        TwinError: the board has no such endpoint.
        """
        endpoint = self.board.outside_endpoint
        if endpoint is None or not endpoint.device.event_counter:
            raise TwinError(
                f"no endpoint of {self.board.name} takes interrupts from outside "
                "(its_device_id: 0 and event_counter: true)"
            )
        counter = endpoint.config_base + pciconfig.EVENT_CAP + pciconfig.EVENT_DATA
        taken, waiting = 0, True
        with self._memory() as memory:
            for _unused in range(count):
                before = memory.read32(counter)
                memory.write32(qemu.GITS_TRANSLATER, event)
                deadline = time.monotonic() + patience_s
                while waiting and memory.read32(counter) == before:
                    waiting = time.monotonic() < deadline
                taken += waiting
        return taken

    def set_link(self, bdf: str, gt_s: float, width: int) -> None:
        """Change the negotiated link of a port or endpoint, at both ends; width 0 is a link that is down.

        KeyError: the board has no such function. TwinError: no such speed.
        """
        if gt_s not in pciconfig.SPEED_CODES:
            raise TwinError(f"{gt_s} GT/s is no PCIe speed; there are {', '.join(map(str, pciconfig.SPEED_CODES))}")
        link = Link(gt_s, width)
        with self._memory() as memory:
            for end in self.board.link_ends(self.board.function_at(bdf)):
                register = end.config_base + pciconfig.PCIE_CAP + pciconfig.LNKSTA
                memory.write16(register, pciconfig.link_register(end, link))

    def kill(self, bdf: str) -> None:
        """Make a function dead: its registers read all ones and take no write, until the machine is reset or rebooted.

        KeyError: the board has no such function.
        """
        base = self.board.function_at(bdf).config_base
        with self._memory() as memory:
            memory.fill(base + pciconfig.PAGE, 2 * pciconfig.PAGE, 0x00)
            memory.fill(base, pciconfig.PAGE, 0xFF)

    def revive(self, bdf: str, *, after_reset: bool = False, patience_s: float = 600) -> None:
        """Give a dead function the registers that it has after a reset.

        With ``after_reset`` that is done once the bus below the port above it is being reset, as hardware would do it.
        KeyError: the board has no such function. TwinError: nobody has reset that bus within ``patience_s``.
        """
        function = self.board.function_at(bdf)
        image = pciconfig.function_image(function)
        with self._memory() as memory:
            if after_reset:
                control = self.board.link_ends(function)[0].config_base + _BRIDGE_CONTROL
                deadline = time.monotonic() + patience_s
                while not memory.read32(control) & _BUS_RESET:
                    if time.monotonic() > deadline:
                        raise TwinError(f"nobody has reset the bus of {bdf} within {patience_s:.0f} s")
                    time.sleep(0.005)
            for page in (1, 2, 0):  # what may be written first: the kernel looks at the registers
                start = page * pciconfig.PAGE
                memory.fill(function.config_base + start, pciconfig.PAGE, 0x00)
                for offset in range(start, start + pciconfig.PAGE, 4):
                    (word,) = struct.unpack_from("<I", image, offset)
                    if word:
                        memory.write32(function.config_base + offset, word)

    def _memory(self) -> qemu.Qtest:
        # One connection at a time: a second one would wait in the socket's queue and then time out.
        return _LockedQtest(self.run)

    # -- stopping -----------------------------------------------------------------------------------------------------

    def is_alive(self) -> bool:
        state = _read_state(self.run)
        return state is not None and _is_ours(state, self.run)

    def stop(self) -> None:
        """End the process, if it is still ours, and remove what it left."""
        state = _read_state(self.run)
        if state is not None and _is_ours(state, self.run):
            for sign, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
                try:
                    os.kill(state["pid"], sign)
                except ProcessLookupError:
                    break
                deadline = time.monotonic() + patience_s
                while _is_ours(state, self.run) and time.monotonic() < deadline:
                    time.sleep(0.02)
                if not _is_ours(state, self.run):
                    break
            else:
                raise TwinError(f"QEMU of {self.name} (process {state['pid']}) does not end")
        if state is not None and Path(state["disk"]).parent == checkout_state() / "disks":
            Path(state["disk"]).unlink(missing_ok=True)
        shutil.rmtree(self.run, ignore_errors=True)


class _LockedQtest(qemu.Qtest):
    def __init__(self, run: Path) -> None:
        self._lock = locked(run / "qtest.lock")
        self._lock.__enter__()
        try:
            super().__init__(run / "qtest.sock")
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *details: object) -> None:
        try:
            super().__exit__(*details)
        finally:
            self._lock.__exit__(None, None, None)


def known(load_board: Callable[[str], Board]) -> list[Instance]:
    """The checkout's twins, by name: the running ones and those that ended without being stopped."""
    found = []
    for run in sorted(runtime_root().iterdir()):
        state = _read_state(run)
        if state is not None:
            found.append(Instance(state["name"], load_board(state["board"]), Path(state["built"]), run, state["port"]))
    return found


def write_ssh_config(instances: Sequence[Instance]) -> Path:
    """The checkout's ssh_config: one block per running twin."""
    blocks = ["# Written by python -m twin: the twins of this checkout that run now.\n"]
    for instance in instances:
        options = {"HostName": "127.0.0.1", "Port": str(instance.port), "User": "root", **ssh_options(instance.key)}
        lines = "".join(f"    {name} {value}\n" for name, value in options.items())
        blocks.append(f"Host {instance.name}\n{lines}")
    path = checkout_state() / "ssh_config"
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(blocks), encoding="utf-8")
    temporary.rename(path)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_state(run: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((run / STATE_FILE).read_text(encoding="utf-8"))
        return state
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_ours(state: dict[str, Any], run: Path) -> bool:
    """Whether the process still is the QEMU we started: numbers are used again, start times with them are not."""
    try:
        command = Path(f"/proc/{state['pid']}/cmdline").read_bytes()
        return str(run).encode() in command and _start_time(state["pid"]) == state["started"]
    except (FileNotFoundError, ProcessLookupError):
        return False


def _start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot. ProcessLookupError: there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    if fields[0] == "Z":
        raise ProcessLookupError(pid)
    return int(fields[19])
