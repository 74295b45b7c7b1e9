# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arguments that several modules share."""

from __future__ import annotations

from typing import Any, Dict

DEVICES_ARGUMENT: Dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str"},
        "vendor": {"type": "str", "required": True},
        "device": {"type": "str", "required": True},
        "subsystem_vendor": {"type": "str"},
        "subsystem_device": {"type": "str"},
        "class_code": {"type": "str"},
        "internal": {"type": "bool", "default": False},
        "drivers": {"type": "list", "elements": "str", "default": []},
        "modules": {"type": "list", "elements": "str", "default": []},
    },
}

KEEPER_ARGUMENTS: Dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "persist": {"type": "bool", "default": True},
    # No secret; but without this the host's journal gets the whole source at every run.
    "front_door": {"type": "str", "no_log": True},
    "strict": {"type": "bool", "default": False},
    "after_roles": {"type": "list", "elements": "str", "default": []},
}
