# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action: a report on the control node, as data and as a page. Documented in plugins/modules/report_file.py."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_page import Box, box_page, fleet_page
from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_view import NotAReport, with_before

LARGEST = 1 << 26  # bytes of a report; what is larger was not written by this collection


class Refused(Exception):
    """What is wrong and what to do, in one sentence."""


def as_json(report: dict[str, Any]) -> bytes:
    """Return a report as it stands in its file."""
    return (json.dumps(report, indent=4, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def write(path: str, content: bytes, mode: int) -> None:
    """Write CONTENT to PATH in one step; a reader sees the old or the new file, never half of one."""
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=directory, prefix=".report-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(scratch, mode)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def remove(path: str) -> None:
    """Remove PATH, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def minute(seconds: float) -> str:
    """Return a time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def name_of(path: str) -> str:
    """Return what the box is called whose report is at PATH."""
    name = os.path.basename(path)
    return name[: -len(".json")] if name.endswith(".json") else name


def box_at(path: str) -> Box:
    """Return the report in a file; raises OSError and ValueError."""
    with open(path, "rb") as stream:
        written = os.fstat(stream.fileno()).st_mtime
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError("it has more than %d bytes" % LARGEST)
    return Box(name_of(path), json.loads(data), minute(written))


def boxes_in(directory: str) -> tuple[list[Box], list[tuple[str, str]]]:
    """Return the reports in a directory, and the files that hold none, each with the reason."""
    boxes: list[Box] = []
    problems: list[tuple[str, str]] = []
    for name in sorted(os.listdir(directory) if os.path.isdir(directory) else []):
        if name.startswith(".") or not name.endswith(".json"):
            continue
        try:
            boxes.append(box_at(os.path.join(directory, name)))
        except OSError as error:
            problems.append((name, str(error.strerror)))
        except (ValueError, RecursionError):
            problems.append((name, "it is no JSON"))
    return boxes, problems


def write_report(path: str, page: str | None, report: dict[str, Any]) -> None:
    """Write a report, and its PAGE if there is to be one. An earlier report there tells where interrupts were."""
    report = json.loads(as_json(report))
    with contextlib.suppress(OSError, ValueError, RecursionError):
        report = with_before(report, box_at(path).report)
    text = None
    if page is not None:
        try:
            text = box_page(Box(name_of(path), report, minute(time.time())))
        except NotAReport as error:
            raise Refused(f"page {page}: {error}; hand over what npu_host_info returned as report") from error
    write(path, as_json(report), 0o644)
    if page is not None and text is not None:
        write(page, text.encode("utf-8"), 0o644)


def write_fleet(path: str, directory: str) -> None:
    """Write the page of all reports in DIRECTORY; where there is none, there is no page either."""
    boxes, problems = boxes_in(directory)
    if boxes or problems:
        write(path, fleet_page(boxes, problems).encode("utf-8"), 0o644)
    else:
        remove(path)


class ActionModule(ActionBase):
    """Writes or removes files on the control node."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; raises AnsibleActionFail with a sentence for what cannot be written."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "page": {"type": "path"},
                "report": {"type": "dict"},
                "fleet": {"type": "path"},
                "bundle": {"type": "str"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
            required_if=[("state", "present", ("report", "fleet", "bundle"), True)],
            mutually_exclusive=[("report", "fleet", "bundle"), ("page", "fleet"), ("page", "bundle")],
        )
        refusal = None
        try:
            self._act(options)
        except Refused as error:
            refusal = str(error)
        # Raised outside of the handler: Ansible would print what it came from as well, and say everything twice.
        if refusal is not None:
            raise AnsibleActionFail(refusal)
        return dict(result, changed=False, path=os.path.abspath(options["path"]))

    def _act(self, options: dict[str, Any]) -> None:
        path = os.path.abspath(options["path"])
        page = None if options["page"] is None else os.path.abspath(options["page"])
        what = "bundle" if options["bundle"] is not None else "report"
        try:
            if options["state"] == "absent":
                for one in (path, page):
                    if one is not None:
                        remove(one)
            elif options["bundle"] is not None:
                write(path, base64.b64decode(options["bundle"], validate=True), 0o600)
            elif options["fleet"] is not None:
                write_fleet(path, os.path.abspath(options["fleet"]))
            else:
                write_report(path, page, options["report"])
        except binascii.Error as error:
            raise Refused(f"bundle {path}: {error}; hand over what npu_host_info returned as bundle") from error
        except OSError as error:
            where = "" if error.filename in (None, path) else f" ({error.filename})"
            verb = "removed" if options["state"] == "absent" else "written"
            raise Refused(
                f"{what} {path} cannot be {verb}: {error.strerror}{where}; choose another directory for {what}s"
            ) from error
