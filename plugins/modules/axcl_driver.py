#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: the driver of Axera's PCIe cards."""

from __future__ import annotations

DOCUMENTATION = r"""
module: axcl_driver
short_description: Install the driver of Axera NPU cards, keep it through kernel upgrades, prove it, remove it
version_added: 0.1.0
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
        behind, for all kernels. What O(prepare) has installed stays, since others may build with it by then.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Where the driver comes from, one of O(source.file), O(source.path), O(source.url), O(source.files) and
        O(source.package).
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
      files:
        description:
          - All .deb files of a driver that comes in several. Every one is looked at before any is installed, and they
            are installed together.
        type: list
        elements: dict
        suboptions:
          file:
            description: A .deb file on the control node.
            type: path
          path:
            description: A .deb file on the host.
            type: path
          url:
            description: Address of a .deb file.
            type: str
          sha256:
            description: Checksum of this file.
            type: str
      package:
        description: Name of a package that apt has, from O(source.repository) or one that is set up on the host.
        type: str
      version:
        description: Version of O(source.package). Without it any that is installed is right.
        type: str
      repository:
        description:
          - Apt repository that O(source.package) comes from. It is tried apart from the host's own, and set up only if
            it has the package and is signed with the right key. Apt may take the driver from there and nothing else.
          - It goes with O(state=absent), or when the driver comes from elsewhere.
        type: dict
        suboptions:
          uri:
            description: Its address, V(https://...), or V(file:/...) for a directory of the host.
            type: str
            required: true
          suite:
            description: What stands below C(dists/) in it. One that ends with V(/) has no components.
            type: str
            required: true
          components:
            description: Its components.
            type: list
            elements: str
          architecture:
            description: Architecture of the packages. It has to be the host's, which it is if this is left out.
            type: str
          key:
            description: The public key that the repository is signed with, as armoured text.
            type: str
          key_file:
            description: A file on the control node with that key, armoured or binary.
            type: path
          key_url:
            description: Address of that key. It is fetched by the host, and needs O(source.repository.fingerprint).
            type: str
          fingerprint:
            description: Fingerprints that the key may have. Where there are several keys, each must be among them.
            type: list
            elements: str
          fingerprint_none_accepted:
            description: Take the key without O(source.repository.fingerprint), whoever it belongs to.
            type: bool
            default: false
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
  - Building and loading take minutes. Other hosts go on meanwhile; every half a minute a line tells which hosts are
    still at work, and what they do is in their journals (C(journalctl -f -t ansible-edgenpu.tuning.axcl_driver)).
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

- name: Install the driver from an apt repository
  edgenpu.tuning.axcl_driver:
    source:
      package: axclhost
      version: 3.6.5-m5stack1
      repository:
        uri: https://repo.llm.m5stack.com/m5stack-apt-repo
        suite: axclhost
        components: [main]
        key_file: StackFlow.gpg
        fingerprint: ["{{ axcl_key_fingerprint }}"]

- name: Install a driver that comes in several files
  edgenpu.tuning.axcl_driver:
    source:
      files:
        - file: axclhost-firmware_3.6.5-1_all.deb
          sha256: "{{ axcl_sha256.firmware }}"
        - file: axclhost-dkms_3.6.5-1_all.deb
          sha256: "{{ axcl_sha256.dkms }}"
        - file: task-axclhost_3.6.5-1_all.deb
          sha256: "{{ axcl_sha256.task }}"

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
repository:
  description: The apt repository that this module has set up, if there is one.
  returned: always
  type: dict
  contains:
    uri:
      description: Its address.
      type: str
      sample: https://repo.llm.m5stack.com/m5stack-apt-repo
    suite:
      description: Its suite.
      type: str
      sample: axclhost
    fingerprints:
      description: The keys that it may be signed with.
      type: list
      elements: str
      sample: ["0123456789ABCDEF0123456789ABCDEF01234567"]
    pin:
      description: How apt knows its packages. Of these only the driver can be installed.
      type: str
      sample: origin "repo.llm.m5stack.com"
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
import time
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_file

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import (
    LOCK_PATH,
    Done,
    Failed,
    make_absent,
    make_present,
    prove,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.offers import NeedsFile, as_written, find_offer
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.commands import journalled, limited
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import plain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import (
    DriverWishes,
    Offer,
    drivers_of,
    kernels_as_data,
    outcome,
    reboot_reason,
    repository_as_data,
    wrong_source,
    wrong_wishes,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.obstacles import no_driver_here
from ansible_collections.edgenpu.tuning.plugins.module_utils.module import (
    changes_as_data,
    diff_of,
    live_sink,
    refusals_told,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host

FILE_OPTIONS: Dict[str, Any] = {
    "file": {"type": "path"},
    "path": {"type": "path"},
    "url": {"type": "str"},
    "sha256": {"type": "str"},
}
REPOSITORY_OPTIONS: Dict[str, Any] = {
    "uri": {"type": "str", "required": True},
    "suite": {"type": "str", "required": True},
    "components": {"type": "list", "elements": "str"},
    "architecture": {"type": "str"},
    "key": {"type": "str", "no_log": False},  # it is public, and would hide every word that it has
    "key_file": {"type": "path", "no_log": False},
    "key_url": {"type": "str", "no_log": False},
    "fingerprint": {"type": "list", "elements": "str"},
    "fingerprint_none_accepted": {"type": "bool", "default": False},
}
SOURCE_ARGUMENT: Dict[str, Any] = {
    "type": "dict",
    "options": dict(
        FILE_OPTIONS,
        files={"type": "list", "elements": "dict", "options": FILE_OPTIONS},
        checksum_none_accepted={"type": "bool", "default": False},
        package={"type": "str"},
        version={"type": "str"},
        repository={"type": "dict", "options": REPOSITORY_OPTIONS},
        sdk_version={"type": "str"},
    ),
}


def offered(module: AnsibleModule, sink: Sink) -> Optional[Offer]:
    """Return what the source offers, fetched only where it is not installed yet; None without a source."""
    source = module.params["source"]
    if source is None:
        return None
    try:
        fetch = None if module.check_mode else lambda url: fetch_file(module, url, timeout=60)
        return find_offer(sink.root, source, limited(module), fetch, time.time())
    except NeedsFile:
        module.exit_json(changed=False, needs_file=True, msg="the action plugin copies the file to the host now")
        return None


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
        "repository": repository_as_data(done.state),
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
    present = asked["state"] == "present"
    wishes = DriverWishes(
        asked["family"],
        asked["hold"],
        asked["group"],
        asked["load_timeout"],
        asked["prepare"],
        asked["headers_package"],
        asked["prevent_sleep"],
    )
    trouble = wrong_wishes(wishes)
    if present and asked["source"] is not None:
        trouble = trouble or wrong_source(as_written(asked["source"]))
    trouble = trouble or no_driver_here(read_host(sink.root), os.uname().sysname, 0 if check else os.geteuid())
    if trouble is not None:
        module.fail_json(msg=trouble)
    with refusals_told(module, sink, LOCK_PATH):
        runner = journalled(module, limited(module))
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
