#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: the driver of Axera's PCIe cards."""

from __future__ import annotations

DOCUMENTATION = r"""
module: axcl_driver
short_description: Install the driver of Axera NPU cards, keep it through kernel upgrades, prove it, remove it
version_added: 0.2.0
description:
  - Installs the AXCL host package from a file, an address or an apt repository, once everything that would make it fail
    has been looked at - architecture, headers of the running kernel, compiler, Secure Boot, disk, who uses the card.
    Until then nothing is changed.
  - Registers the driver with DKMS where the package does not, so that it is built for every kernel that has headers,
    and for those that come later.
  - Puts right what the packages spoil - apt without its sandbox, device nodes open to everybody, a boot that waits for
    the card's firmware. The modules are loaded by a unit of their own.
  - Proves the result - modules, device nodes, handshake in the kernel log, a plausible row for every card.
  - What is to be done follows from what is seen, so a run that was killed is simply repeated.
options:
  state:
    description:
      - With V(present) the driver is installed and kept; with V(absent) it goes, with all that it and its package leave
        behind, for all kernels.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Where the driver comes from, one of O(source.file), O(source.path), O(source.url) and O(source.package).
      - Without it the driver that is installed already is kept and put right.
    type: dict
    suboptions:
      file:
        description: A .deb file on the control node. It is copied only to hosts on which it is not installed yet.
        type: path
      path:
        description: A .deb file on the host.
        type: path
      url:
        description: Address of a .deb file. It is fetched only by hosts on which it is not installed yet.
        type: str
      sha256:
        description: Checksum of the .deb file. It also tells whether that file is what is installed.
        type: str
      checksum_none_accepted:
        description: Take a .deb file without O(source.sha256), whatever is in it. A URL is fetched at every run then.
        type: bool
        default: false
      package:
        description: Name of a package that apt has, from a repository that is set up on the host.
        type: str
      version:
        description: Version of O(source.package). Without it any that is installed is right.
        type: str
      sdk_version:
        description:
          - Version of the vendor's SDK in the package, such as V(3.6.4), where neither the file's name nor the
            package's version tells. It decides for which kernels the driver builds.
        type: str
  family:
    description:
      - Whether the package builds the driver for the running kernel only (V(vendor)) or through DKMS (V(dkms)).
        V(auto) goes by what the package depends on.
    type: str
    choices: [auto, vendor, dkms]
    default: auto
  hold:
    description:
      - Keep apt from upgrading the package by itself, since the old driver has to go before the new one comes.
    type: bool
    default: true
  group:
    description: Group whose members may use the card. It is made if it does not exist.
    type: str
    default: axcl
  load_timeout:
    description: Seconds that loading the driver may take for each card. It hands over the firmware and waits for it.
    type: int
    default: 300
  prepare:
    description: Install what building needs (dkms, gcc, make, patch, kmod, kernel headers), if apt can have all of it.
    type: bool
    default: true
  headers_package:
    description: Package with the running kernel's headers, where it is not named after the kernel's release.
    type: str
  prevent_sleep:
    description: Mask the host's sleep targets. The card does not survive a suspend.
    type: bool
    default: true
  strict:
    description: Fail if a build or the proof fails. Otherwise that is a warning, and named in the result.
    type: bool
    default: true
notes:
  - Loading takes up to minutes for each card. Other hosts go on meanwhile.
  - The host is never rebooted; RV(reboot_required) tells where that would be needed.
attributes:
  check_mode:
    description: Can run in check mode. What only unpacking, building and loading can tell is named in RV(unknown).
    support: full
  diff_mode:
    description: Shows files by content, all else as before and after.
    support: full
  platform:
    description: Debian and its relatives with systemd.
    support: full
    platforms: debian
requirements:
  - Python 3.8 or newer on the managed host, nothing else
author:
  - The edgenpu.tuning authors (@edgenpu)
seealso:
  - module: edgenpu.tuning.axcl_info
  - module: edgenpu.tuning.npu_host_info
"""

EXAMPLES = r"""
- name: Install the driver from a file on the control node
  edgenpu.tuning.axcl_driver:
    source:
      file: axcl_host_aarch64_V3.10.2_20251111020143_NO5046.deb
      sha256: "{{ axcl_sha256 }}"

- name: Keep the driver that is installed, for all kernels, and give the card to one group
  edgenpu.tuning.axcl_driver:
    group: npu

- name: Remove it with all that it has left
  edgenpu.tuning.axcl_driver:
    state: absent
"""

RETURN = r"""
msg:
  description: The outcome in one sentence.
  returned: always
  type: str
  sample: driver 3.6.4 is installed and works, 1 card
packages:
  description: Packages of the driver after the run.
  returned: always
  type: list
  elements: dict
  sample:
    - name: axclhost
      version: 1.0.0
      want: hold
      state: installed
kernels:
  description: Installed kernels, from old to new. Look here before a reboot.
  returned: always
  type: list
  elements: dict
  contains:
    release:
      description: Its release.
      type: str
      sample: 6.1.118
    running:
      description: It is the one that runs.
      type: bool
      sample: true
    headers:
      description: The driver can be built for it.
      type: bool
      sample: true
    has_driver:
      description: The driver is there for it.
      type: bool
      sample: true
proof:
  description: What shows that the driver works, or does not.
  returned: when O(state=present), not in check mode
  type: list
  elements: dict
  contains:
    id:
      description: Stable name.
      type: str
      sample: card_handshake
    severity:
      description: V(ok); V(critical) if it does not; V(warning) if it could not be seen.
      type: str
      sample: ok
    summary:
      description: What was seen.
      type: str
      sample: '0003:31:00.0: the firmware has come up and the card answers'
    evidence:
      description: Where.
      type: dict
      sample:
        dmesg: 'base_addr: 0x0, size: 0x400000'
    remedy:
      description: What to do.
      type: str
      sample: ''
    role:
      description: Role that applies the remedy.
      type: str
      sample: null
reboot_required:
  description: Whether only a reboot puts the installed driver in force. The module never reboots.
  returned: always
  type: bool
  sample: false
reboot_reason:
  description: Why.
  returned: always
  type: str
  sample: null
changes:
  description: What was done (in check mode, would be), in order.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: File, or a step's kind and target.
      type: str
      sample: 'build: 6.1.118'
    before:
      description: As found.
      type: str
      sample: null
    after:
      description: As wished.
      type: str
      sample: edgenpu-axcl/3.6.4-119caaff
    why:
      description: Reason.
      type: str
      sample: the driver for kernel 6.1.118, through DKMS
refused:
  description: What did not go while the rest went on, each with C(why).
  returned: always
  type: list
  elements: dict
  sample: []
unknown:
  description: What cannot be known yet, and until when.
  returned: always
  type: list
  elements: str
  sample:
    - 'whether the card comes up: unknown until it has its firmware'
"""

import os
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_file

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import (
    LOCK_PATH,
    Done,
    Failed,
    cached,
    look_at_deb,
    make_absent,
    make_present,
    prove,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import (
    DriverWishes,
    Offer,
    drivers_of,
    is_installed,
    kernels_as_data,
    outcome,
    reboot_reason,
    wrong_source,
    wrong_wishes,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.obstacles import no_driver_here
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    changes_as_data,
    diff_of,
    live_sink,
    refusals_told,
    runner_of,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import read_driver_state
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host

SOURCE_ARGUMENT: Dict[str, Any] = {
    "type": "dict",
    "options": {
        "file": {"type": "path"},
        "path": {"type": "path"},
        "url": {"type": "str"},
        "sha256": {"type": "str"},
        "checksum_none_accepted": {"type": "bool", "default": False},
        "package": {"type": "str"},
        "version": {"type": "str"},
        "sdk_version": {"type": "str"},
    },
}


def offered(module: AnsibleModule, sink: Sink) -> Optional[Offer]:
    """Return what the source offers, fetched only where it is not installed yet; None without a source."""
    source = module.params["source"]
    if source is None:
        return None
    # The action plugin hands over a copy's place in addition to the file that it is a copy of.
    trouble = wrong_source(dict(source, path=None) if source["file"] else source)
    if trouble is not None:
        module.fail_json(msg=trouble)
    sdk, name = source["sdk_version"], os.path.basename(source["file"] or source["path"] or source["url"] or "")
    if source["package"]:
        return Offer(package=source["package"], version=source["version"], sdk=sdk or source["version"])
    sha256 = None if source["sha256"] is None else source["sha256"].lower()
    path = source["path"]
    if sha256 is not None:
        state = read_driver_state(sink.root)
        known = Offer(sha256=sha256, file_name=name, sdk=sdk or state.record.sdk)
        if is_installed(state, known):
            return known
        if path is None and sink.root.exists(cached(sha256)):
            path = cached(sha256)  # of a run that was killed
    if path is None and source["url"]:
        if module.check_mode:
            return Offer(sha256=sha256 or "", file_name=name, sdk=sdk)
        path = fetch_file(module, source["url"], timeout=60)
    if path is None:
        module.exit_json(changed=False, needs_file=True, msg="the action plugin copies the file to the host now")
    return look_at_deb(sink.root, path, name, sha256, sdk, runner_of(module))


def result_of(done: Done) -> Dict[str, Any]:
    """Return what both states of the driver have in common."""
    reason = reboot_reason(done.state)
    return {
        "changed": bool(done.changes),
        "changes": changes_as_data(done.changes),
        "refused": changes_as_data(done.refused),
        "unknown": done.unknown,
        "diff": diff_of(done.changes, done.files),
        "packages": [plain(package) for package in drivers_of(done.state)],
        "kernels": kernels_as_data(done.state),
        "reboot_required": reason is not None,
        "reboot_reason": reason,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": SOURCE_ARGUMENT,
            "family": {"type": "str", "choices": ["auto", "vendor", "dkms"], "default": "auto"},
            "hold": {"type": "bool", "default": True},
            "group": {"type": "str", "default": "axcl"},
            "load_timeout": {"type": "int", "default": 300},
            "prepare": {"type": "bool", "default": True},
            "headers_package": {"type": "str"},
            "prevent_sleep": {"type": "bool", "default": True},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    sink = live_sink()
    asked, check = module.params, module.check_mode
    trouble = no_driver_here(read_host(sink.root), os.uname().sysname, 0 if check else os.geteuid())
    wishes = DriverWishes(
        asked["family"],
        asked["hold"],
        asked["group"],
        asked["load_timeout"],
        asked["prepare"],
        asked["headers_package"],
        asked["prevent_sleep"],
    )
    trouble = trouble or wrong_wishes(wishes)
    if trouble is not None:
        module.fail_json(msg=trouble)
    present = asked["state"] == "present"
    with refusals_told(module, sink, LOCK_PATH):
        runner = runner_of(module)
        try:
            if present:
                done = make_present(sink, offered(module, sink), wishes, runner, check)
            else:
                done = make_absent(sink, runner, check)
        except Failed as error:
            module.fail_json(msg=str(error))
        findings = prove(sink.root, wishes, runner) if present and not check and not done.obstacles else []
    result = result_of(done)
    for warning in done.warnings:
        module.warn(warning)
    if done.obstacles:
        module.fail_json(msg="; ".join(done.obstacles), **result)
    if present and not check:
        result["proof"] = [plain(finding) for finding in findings]
    message, broken = outcome(done.state, present, check, bool(done.changes), findings)
    wrong = [change.why for change in done.refused] + broken
    if wrong and asked["strict"]:
        module.fail_json(msg="; ".join(wrong), **result)
    for sentence in wrong:
        module.warn(sentence)
    module.exit_json(msg=message, **result)


if __name__ == "__main__":
    main()
