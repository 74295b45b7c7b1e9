# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
import stat
from typing import Any, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import sink as sink_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import ABSENT, FileState, NotAFile, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_mask
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PATH = "/etc/some/where/file.conf"
IRQ = "/proc/irq/38/smp_affinity_list"
GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy4/scaling_governor"


@pytest.fixture(name="sink")
def fixture_sink(tree: Tree) -> Sink:
    return Sink(tree.root)


def listing(path: pathlib.Path) -> Any:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


class TestPut:
    def test_new_file(self, sink: Sink, tree: Tree) -> None:
        state = FileState(b"a\0b\xff", None, 0o640, os.geteuid(), os.getegid())
        sink.put(PATH, state)
        assert sink.state(PATH) == state
        assert listing(tree.path) == ["etc", "etc/some", "etc/some/where", "etc/some/where/file.conf"]

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_modes_do_not_depend_on_the_umask(self, sink: Sink, tree: Tree, umask: int) -> None:
        before = os.umask(umask)
        try:
            sink.put(PATH, FileState(b"", None, 0o755))
        finally:
            os.umask(before)
        modes = [stat.S_IMODE((tree.path / name).stat().st_mode) for name in ("etc/some", "etc/some/where")]
        assert modes == [0o755, 0o755]
        assert sink.state(PATH).mode == 0o755

    def test_directories_that_were_there_keep_their_modes(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/some/other")
        (tree.path / "etc/some").chmod(0o711)
        sink.put(PATH, FileState(b""))
        assert stat.S_IMODE((tree.path / "etc/some").stat().st_mode) == 0o711

    def test_replaced_in_one_step(self, sink: Sink, tree: Tree) -> None:
        """A reader that has the old file open keeps it whole: the new one is another file."""
        tree.file(PATH, "old content")
        with (tree.path / PATH[1:]).open("rb") as reader:
            sink.put(PATH, FileState(b"new", None, 0o644))
            assert reader.read() == b"old content"
        assert sink.state(PATH).content == b"new"
        assert os.listdir(str(tree.path / "etc/some/where")) == ["file.conf"]

    def test_failure_leaves_the_old_file_and_nothing_else(
        self, sink: Sink, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree.file(PATH, "old")
        (tree.path / PATH[1:]).chmod(0o600)
        before = sink.state(PATH)

        def refuse(source: str, target: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", target)

        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(OSError, match="No space left"):
            sink.put(PATH, FileState(b"new"))
        assert sink.state(PATH) == before
        assert os.listdir(str(tree.path / "etc/some/where")) == ["file.conf"]

    def test_content_is_on_disk_before_the_name_is(self, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise a power failure may leave an empty file under the right name."""
        events = []
        fsync, rename = os.fsync, os.rename

        def recorded_fsync(handle: int) -> None:
            events.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
            fsync(handle)

        def recorded_rename(source: str, target: str) -> None:
            events.append("rename")
            rename(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "rename", recorded_rename)
        sink.put(PATH, FileState(b"x"))
        assert events == ["file", "rename", "directory"]
        sink.put(PATH, ABSENT)
        assert events[3:] == ["directory"]

    @pytest.mark.parametrize("left", ["file", "link"])
    def test_what_a_killed_run_left_is_no_obstacle(self, sink: Sink, tree: Tree, left: str) -> None:
        scratch = "/etc/some/where/" + sink_module.SCRATCH
        if left == "file":
            tree.file(scratch, "half")
        else:
            tree.link(scratch, "/etc/passwd")
        sink.put(PATH, FileState(b"new"))
        assert sink.state(PATH).content == b"new"
        assert os.listdir(str(tree.path / "etc/some/where")) == ["file.conf"]

    def test_removal(self, sink: Sink, tree: Tree) -> None:
        tree.file(PATH, "old")
        tree.file("/etc/some/where/" + sink_module.SCRATCH, "half")
        sink.put(PATH, ABSENT)
        assert os.listdir(str(tree.path / "etc/some/where")) == []
        sink.put(PATH, ABSENT)
        sink.put("/no/such/directory/file", ABSENT)
        assert not (tree.path / "no").exists()

    def test_link(self, sink: Sink, tree: Tree) -> None:
        sink.put(PATH, FileState(None, "../over/there", 0o777, os.geteuid(), os.getegid()))
        assert sink.state(PATH) == FileState(None, "../over/there", 0o777, os.geteuid(), os.getegid())

    def test_link_replaces_file_and_file_replaces_link(self, sink: Sink, tree: Tree) -> None:
        """A link is replaced, not followed: what it pointed to is somebody else's."""
        tree.file("/etc/other", "theirs")
        tree.file(PATH, "old")
        sink.put(PATH, FileState(None, str(tree.path / "etc/other"), 0o777))
        sink.put(PATH, FileState(b"new"))
        assert sink.state(PATH).content == b"new"
        assert (tree.path / "etc/other").read_text() == "theirs"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_owner(self, sink: Sink) -> None:
        for state in (FileState(b"x", None, 0o640, 1234, 5678), FileState(None, "x", 0o777, 1234, 5678)):
            sink.put(PATH, state)
            assert sink.state(PATH) == state


class TestState:
    def test_nothing(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/some", "a file where a directory might be")
        assert sink.state(PATH) == sink.state("/nowhere") == ABSENT

    def test_dangling_link(self, sink: Sink, tree: Tree) -> None:
        tree.link(PATH, "/no/where")
        assert sink.state(PATH).target == "/no/where"

    def test_special_bits(self, sink: Sink, tree: Tree) -> None:
        tree.file(PATH, "x")
        (tree.path / PATH[1:]).chmod(0o4751)
        assert sink.state(PATH).mode == 0o4751
        sink.put(PATH, sink.state(PATH))
        assert sink.state(PATH).mode == 0o4751

    @pytest.mark.parametrize("kind", ["directory", "fifo"])
    def test_not_a_file(self, sink: Sink, tree: Tree, kind: str) -> None:
        where = tree.path / "etc/fifo"
        where.parent.mkdir()
        if kind == "directory":
            where.mkdir()
        else:
            os.mkfifo(str(where))
        with pytest.raises(NotAFile) as caught:
            sink.state("/etc/fifo")
        assert str(caught.value) == (
            "/etc/fifo is neither a file nor a link; move it away, one of our files belongs there"
        )


class TestDirectories:
    def test_missing_parents(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/there", "")
        assert sink.missing_parents(PATH) == ["/etc/some", "/etc/some/where"]
        assert sink.missing_parents("/etc/x") == sink.missing_parents("/x") == []

    def test_remove_if_empty(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/some/theirs", "")
        tree.file("/etc/ours/" + sink_module.SCRATCH, "half")
        assert sink.remove_if_empty("/etc/ours")
        assert not (tree.path / "etc/ours").exists()
        assert sink.remove_if_empty("/etc/ours")
        assert not sink.remove_if_empty("/etc/some")
        assert (tree.path / "etc/some/theirs").exists()

    def test_remove_tree(self, sink: Sink, tree: Tree) -> None:
        tree.file("/keep/file", "theirs")
        tree.file("/ours/a/b/c", "")
        tree.link("/ours/a/directory", str(tree.path / "keep"))
        tree.link("/ours/file", str(tree.path / "keep/file"))
        tree.link("/ours/dangling", "/no/where")
        sink.remove_tree("/ours")
        assert listing(tree.path) == ["keep", "keep/file"]
        sink.remove_tree("/ours")


class Refusing:
    """Stands in for open(): a kernel file that refuses when it is opened, or when what was written is handed over."""

    def __init__(self, number: int, late: bool) -> None:
        self.error = OSError(number, os.strerror(number))
        self.late = late

    def __call__(self, *args: Any, **more: Any) -> Any:
        if not self.late:
            raise self.error
        error = self.error

        class Late(io.StringIO):
            def close(self) -> None:
                super().close()
                raise error

        return Late()


class TestSetValue:
    def test_takes(self, sink: Sink, tree: Tree) -> None:
        tree.file(IRQ, "0-7\n")
        assert sink.set_value(IRQ, "4") is None
        assert tree.root.text(IRQ) == "4"

    @pytest.mark.parametrize(("asked", "kept"), [("4,5,6,7", "4-7"), ("4-7", "4,5,6,7")])
    def test_another_form_of_the_same_list(self, sink: Sink, tree: Tree, asked: str, kept: str) -> None:
        tree.file(IRQ, "")
        assert reading(sink, IRQ, asked, kept) is None

    def test_another_form_of_the_same_mask(self, sink: Sink, tree: Tree) -> None:
        tree.file(IRQ, "")
        assert reading(sink, IRQ, "10", "00,00000010", parse_mask) is None
        assert reading(sink, IRQ, "10", "0f", parse_mask) is not None

    def test_clamped(self, sink: Sink, tree: Tree) -> None:
        """The kernel takes a scaling_max_freq of 1 and keeps the lowest that it has."""
        tree.file(GOVERNOR, "")
        assert reading(sink, GOVERNOR, "1", "408000") == "clamped: the kernel took '1' and keeps '408000'"
        assert reading(sink, GOVERNOR, "performance", "schedutil") == (
            "clamped: the kernel took 'performance' and keeps 'schedutil'"
        )

    def test_cannot_be_read_back(self, sink: Sink, tree: Tree) -> None:
        tree.file(IRQ, "")
        assert reading(sink, IRQ, "4", None) == "written, but %s cannot be read back" % IRQ

    def test_a_value_that_has_gone_is_not_made(self, sink: Sink, tree: Tree) -> None:
        tree.file("/proc/irq/38/spurious", "")
        assert sink.set_value(IRQ, "4") == "ENOENT: the interrupt is gone, its driver has just been unloaded"
        assert os.listdir(str(tree.path / "proc/irq/38")) == ["spurious"]

    @pytest.mark.parametrize("late", [False, True], ids=["at open", "at write"])
    @pytest.mark.parametrize(
        ("path", "value", "number", "reason"),
        [
            (
                IRQ,
                "4",
                errno.EIO,
                (
                    "EIO: nobody can move this interrupt: the kernel manages it, it is a per-CPU one, "
                    "or its controller cannot steer"
                ),
            ),
            (
                IRQ,
                "4",
                errno.EPERM,
                (
                    "EPERM: nobody can move this interrupt: the kernel manages it, it is a per-CPU one, "
                    "or its controller cannot steer"
                ),
            ),
            (IRQ, "4", errno.EINVAL, "EINVAL: the interrupt controller cannot steer this interrupt"),
            (IRQ, "4-5", errno.EINVAL, "EINVAL: the interrupt controller cannot steer this interrupt"),
            (IRQ, "5-6", errno.EINVAL, "EINVAL: none of CPUs 5-6 is online any more"),
            (IRQ, "999", errno.EOVERFLOW, "EOVERFLOW: CPUs 999 do not exist on this kernel"),
            (IRQ, "999", errno.ERANGE, "ERANGE: CPUs 999 do not exist on this kernel"),
            (IRQ, "4", errno.ENOENT, "ENOENT: the interrupt is gone, its driver has just been unloaded"),
            (IRQ, "4", errno.EBUSY, "EBUSY: Device or resource busy"),
            (
                IRQ,
                "4",
                errno.EROFS,
                "EROFS: mounted read-only here, as in a container; run this on the host itself",
            ),
            (IRQ, "4", errno.EACCES, "EACCES: not allowed; root is needed"),
            (GOVERNOR, "x", errno.EPERM, "EPERM: not allowed; root is needed"),
            (GOVERNOR, "x", errno.EBUSY, "EBUSY: all CPUs of this policy are offline"),
            (GOVERNOR, "x", errno.EINVAL, "EINVAL: the kernel does not have 'x'"),
            (GOVERNOR, "x", errno.EIO, "EIO: Input/output error"),
            (GOVERNOR, "x", errno.ENOENT, "ENOENT: No such file or directory"),
            ("/sys/else", "x", errno.EINVAL, "EINVAL: Invalid argument"),
        ],
    )
    def test_reasons(
        self,
        sink: Sink,
        tree: Tree,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        value: str,
        number: int,
        reason: str,
        late: bool,
    ) -> None:
        """A kernel value is refused when it is opened or, more often, when it is written."""
        tree.cpus(8, "0-4")
        monkeypatch.setattr(sink_module, "open", Refusing(number, late), raising=False)
        assert sink.set_value(path, value) == reason


class Fixed(Root):
    """Reads one text, whatever has been written."""

    kept: Optional[str] = None

    def text(self, path: str) -> Optional[str]:
        return self.kept


def reading(sink: Sink, path: str, asked: str, kept: Optional[str], *parse: Any) -> Optional[str]:
    """Set a value in a kernel that keeps KEPT."""
    root = Fixed(sink.root.path)
    root.kept = kept
    return Sink(root).set_value(path, asked, *parse)


def test_paths_of_the_live_system_are_left_alone() -> None:
    assert Sink(Root("/")).host_path("/proc/irq") == "/proc/irq"


def test_nothing_else_is_opened_to_be_written(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    """Files are made below the root only."""
    opened = []
    real_open, real_os_open = builtins.open, os.open

    def watched(path: Any, *args: Any, **more: Any) -> Any:
        opened.append(str(path))
        return real_open(path, *args, **more)

    def os_watched(path: Any, *args: Any, **more: Any) -> int:
        opened.append(str(path))
        return real_os_open(path, *args, **more)

    monkeypatch.setattr(sink_module, "open", watched, raising=False)
    monkeypatch.setattr(os, "open", os_watched)
    sink.put(PATH, FileState(b"x"))
    sink.set_value(PATH, "y")
    assert len(opened) > 2
    assert [path for path in opened if not path.startswith(sink.root.path + "/etc/some/where")] == []


class TestFilesThatAct:
    REMOVE = "/sys/bus/pci/devices/0003:31:00.0/remove"
    CONFIG = "/sys/bus/pci/devices/0003:30:00.0/config"

    def test_one_is_written_and_not_read_back(self, sink: Sink, tree: Tree) -> None:
        tree.file(self.REMOVE)
        (tree.path / self.REMOVE.lstrip("/")).chmod(0o200)
        assert sink.trigger(self.REMOVE) is None
        (tree.path / self.REMOVE.lstrip("/")).chmod(0o600)
        assert tree.root.text(self.REMOVE) == "1"

    def test_what_is_gone_is_not_made(self, sink: Sink, tree: Tree) -> None:
        reason = sink.trigger(self.REMOVE)
        assert reason is not None and reason.startswith("ENOENT")
        reason = sink.set_byte(self.CONFIG, 0x3E, 0x40)
        assert reason is not None and reason.startswith("ENOENT")
        assert listing(tree.path) == []

    def test_one_byte_and_no_other(self, sink: Sink, tree: Tree) -> None:
        tree.file(self.CONFIG, bytes(range(64)))
        assert sink.set_byte(self.CONFIG, 0x3E, 0x7E) is None
        assert tree.root.data(self.CONFIG) == bytes(range(0x3E)) + b"\x7e\x3f"

    def test_register_that_does_not_keep_it(self, monkeypatch: pytest.MonkeyPatch, sink: Sink, tree: Tree) -> None:
        tree.file(self.CONFIG, bytes(64))
        monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: len(data))
        assert sink.set_byte(self.CONFIG, 0x3E, 0x40) == "clamped: written 0x40, and 00 is read back"
