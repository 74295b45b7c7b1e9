# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control node's part of axcl_driver: a package of 50 MB goes only to hosts that ask for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from typing import Any, Dict, Iterator, Optional

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.hashing import secure_hash

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import wrong_source
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import wrong_keyring
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import armour, parse_keyring

TELL_EVERY_S = 30.0
JOURNAL_NAME = "ansible-edgenpu.tuning.axcl_driver"  # AnsibleModule.log's


class ActionModule(ActionBase):
    """Runs the module; once more, with a copy of the files, where the host lacks what is in them."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Return the module's result."""
        result: Dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source = arguments.get("source")
        try:
            if isinstance(source, dict) and arguments.get("state") != "absent":
                _refuse_as_written(source)
                arguments["source"] = source = self._with_checksums(source)
                if isinstance(source.get("repository"), dict):
                    arguments["source"] = dict(source, repository=self._with_key(source["repository"]))
            with self._progress(str((task_vars or {}).get("inventory_hostname", "the host"))):
                answer: Dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
                if answer.pop("needs_file", False):
                    again = dict(arguments, source=self._with_copies(arguments["source"]))
                    answer = self._execute_module(module_args=again, task_vars=task_vars)
            result.update(answer)
        except _Wrong as wrong:
            result.update({"failed": True, "msg": str(wrong)})
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    @contextlib.contextmanager
    def _progress(self, host: str) -> Iterator[None]:
        """Tell from time to time that a host is still at work: building and loading take minutes."""
        over = threading.Event()

        def tell() -> None:
            began = time.monotonic()
            while not over.wait(TELL_EVERY_S):
                passed_s = time.monotonic() - began
                self._display.display(
                    "%s: the driver's installation is under way for %d s; each step is in the host's journal: "
                    "journalctl -f -t %s" % (host, passed_s, JOURNAL_NAME)
                )

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def _with_checksums(self, source: Dict[str, Any]) -> Dict[str, Any]:
        """Return a source of which each file of the control node is there, and of the checksum that is asked for."""
        waived = boolean(source.get("checksum_none_accepted", False), strict=False)
        files = source.get("files")
        if isinstance(files, list):
            source = dict(source, files=[self._checked(one, waived) if isinstance(one, dict) else one for one in files])
        return self._checked(source, waived)

    def _checked(self, source: Dict[str, Any], waived: bool) -> Dict[str, Any]:
        if not source.get("file"):
            return source
        local = self._local(source["file"])
        found = secure_hash(local, hashlib.sha256)
        if found is None:
            raise _Wrong("source: %s is no file on the control node" % source["file"])
        wanted = source.get("sha256")
        if wanted and str(wanted).lower() != found:
            sentence = "source: the sha256 of %s is %s and not %s; get the file again, or mend the checksum"
            raise _Wrong(sentence % (local, found, wanted))
        return dict(source, sha256=found) if wanted or waived else source

    def _with_key(self, repository: Dict[str, Any]) -> Dict[str, Any]:
        """Return a repository with the key that is in a file of the control node. A private one never leaves it."""
        given, text = repository.get("key_file"), repository.get("key")
        if given and not text:
            try:
                with open(self._local(given), "rb") as stream:
                    data = stream.read()
            except OSError as error:
                raise _Wrong("source: repository: %s cannot be read: %s" % (given, error.strerror)) from error
        else:
            data = str(text or "").encode("utf-8")
        if not data and not given:
            return repository
        ring = parse_keyring(data)
        trouble = wrong_keyring(ring, (), given or "key")
        if trouble is not None:
            raise _Wrong(trouble)
        return dict(repository, key=armour(ring.packets), key_file=None)

    def _with_copies(self, source: Dict[str, Any]) -> Dict[str, Any]:
        """Return a source of which each file of the control node has a copy on the host."""
        if not source.get("files"):
            return self._copied(source, "")
        return dict(source, files=[self._copied(one, "%d-" % at) for at, one in enumerate(source["files"])])

    def _copied(self, source: Dict[str, Any], prefix: str) -> Dict[str, Any]:
        if not source.get("file"):
            return source
        local = self._local(source["file"])
        shell = self._connection._shell
        copy = shell.join_path(shell.tmpdir, prefix + os.path.basename(local))
        self._transfer_file(local, copy)
        self._fixup_perms2((shell.tmpdir, copy))
        return dict(source, path=copy)

    def _local(self, name: str) -> str:
        try:
            found: str = self._find_needle("files", name)
        except AnsibleError as error:
            sentence = "source: file %s is not on the control node, neither as it stands nor in files/ beside the play"
            raise _Wrong(sentence % name) from error
        return found


class _Wrong(Exception):
    """What is wrong with a source as far as the control node can tell, in one sentence."""


def _refuse_as_written(source: Dict[str, Any]) -> None:
    """Raise _Wrong if a source makes no sense, before any of its files is looked for."""
    try:
        trouble = wrong_source(source)
    except (AttributeError, TypeError):  # text where a list belongs, say: the module's own specification tells that
        return
    if trouble is not None:
        raise _Wrong(trouble)
