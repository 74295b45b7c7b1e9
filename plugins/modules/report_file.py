#!/usr/bin/python
# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of an action that has no module; its code is plugins/action/report_file.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report_file
short_description: Write a report on the control node
version_added: 0.1.0
description:
  - Writes a report as JSON and as a page in HTML, a page of all reports in a directory, or a bundle as it is, into a
    file on the control node, whole or not at all, and makes the directories above it.
  - A page is one file that fetches nothing. What came from a host is escaped in it, and no script but its own may run.
  - Runs within Ansible itself, so that it costs a fleet neither a connection nor a process for each host.
  - A report of what was read is no change of any host, so this never reports one, and it also runs in check mode.
options:
  path:
    description: Where the report goes. A relative path starts from the working directory.
    type: path
    required: true
  report:
    description:
      - What it holds. This, O(fleet) or O(bundle) is needed with O(state=present).
      - Where O(path) holds a report of the same boot that found an interrupt elsewhere, that place and the counts until
        then are handed on as C(before) of the interrupt.
    type: dict
  page:
    description: With O(report) (or O(state=absent)), where its page in HTML goes (or is).
    type: path
  fleet:
    description:
      - Write the page of all reports in this directory, those of earlier runs included. A file that holds no report is
        named in it. Where there is none, the page is removed.
    type: path
  bundle:
    description:
      - A bundle in base64, as M(edgenpu.tuning.npu_host_info) returns it.
      - Nobody but its owner may read the file.
    type: str
  state:
    description: V(absent) removes the file, and O(page).
    type: str
    choices: [present, absent]
    default: present
author:
  - The edgenpu.tuning authors (@edgenpu)
attributes:
  check_mode:
    description: Writes the report in check mode, too.
    support: full
  diff_mode:
    description: Shows no difference, since counts and clocks differ at every reading.
    support: none
"""

EXAMPLES = r"""
- name: Read the host
  edgenpu.tuning.npu_host_info:
  register: result

- name: Keep what was read
  edgenpu.tuning.report_file:
    path: "reports/{{ inventory_hostname }}.json"
    page: "reports/{{ inventory_hostname }}.html"
    report: "{{ result.report }}"

- name: Show all hosts whose reports are there
  edgenpu.tuning.report_file:
    path: reports/index.html
    fleet: reports
  run_once: true

- name: Pack what was read
  edgenpu.tuning.npu_host_info:
    bundle: true
  register: packed

- name: Keep the bundle
  edgenpu.tuning.report_file:
    path: "bundles/{{ inventory_hostname }}.tar.gz"
    bundle: "{{ packed.bundle }}"
"""

RETURN = r"""
path:
  description: Where the report is.
  returned: always
  type: str
  sample: /home/me/reports/nas.json
"""
