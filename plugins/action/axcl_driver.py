# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control node's part of axcl_driver: a package of 50 MB goes only to hosts that ask for it."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, Optional

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.hashing import secure_hash


class ActionModule(ActionBase):
    """Runs the module; once more, with a copy of the file, where the host lacks what is in it."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Return the module's result."""
        result: Dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source = arguments.get("source")
        try:
            if isinstance(source, dict) and source.get("file") and arguments.get("state") != "absent":
                result.update(self._with_file(arguments, dict(source), task_vars))
            else:
                result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _with_file(
        self, arguments: Dict[str, Any], source: Dict[str, Any], task_vars: Optional[Dict[str, Any]]
    ) -> Dict[str, Any]:
        if source.get("path"):
            return {"failed": True, "msg": "source: give one of file, path, url and package; file and path given"}
        try:
            local = self._find_needle("files", source["file"])
            found = secure_hash(local, hashlib.sha256)
        except AnsibleError as error:
            return {"failed": True, "msg": "source: file %s on the control node: %s" % (source["file"], error)}
        if found is None:
            return {"failed": True, "msg": "source: %s is no file on the control node" % source["file"]}
        wanted = source.get("sha256")
        if wanted and str(wanted).lower() != found:
            sentence = "source: the sha256 of %s is %s and not %s; get the file again, or mend the checksum"
            return {"failed": True, "msg": sentence % (local, found, wanted)}
        if wanted or source.get("checksum_none_accepted"):
            source["sha256"] = found
        answer: Dict[str, Any] = self._execute_module(module_args=dict(arguments, source=source), task_vars=task_vars)
        if not answer.pop("needs_file", False):
            return answer
        shell = self._connection._shell
        copy = shell.join_path(shell.tmpdir, os.path.basename(local))
        self._transfer_file(local, copy)
        self._fixup_perms2((shell.tmpdir, copy))
        again: Dict[str, Any] = self._execute_module(
            module_args=dict(arguments, source=dict(source, path=copy)), task_vars=task_vars
        )
        return again
