# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action: a report on the control node. Documented in plugins/modules/report_file.py."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


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


class ActionModule(ActionBase):
    """Writes or removes one file on the control node."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; raises AnsibleActionFail with a sentence for what cannot be written."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "report": {"type": "dict"},
                "bundle": {"type": "str"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
            required_if=[("state", "present", ("report", "bundle"), True)],
            mutually_exclusive=[("report", "bundle")],
        )
        path = os.path.abspath(options["path"])
        try:
            if options["state"] == "present" and options["bundle"] is not None:
                write(path, base64.b64decode(options["bundle"], validate=True), 0o600)
            elif options["state"] == "present":
                write(path, as_json(options["report"]), 0o644)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        except OSError as error:
            raise AnsibleActionFail(
                f"report {path}: {error.strerror} ({error.filename}); choose another directory for reports"
            ) from error
        except binascii.Error as error:
            raise AnsibleActionFail(f"bundle: {error}; hand over what npu_host_info returned as bundle") from error
        return dict(result, changed=False, path=path)
