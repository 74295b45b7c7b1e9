# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way of modules that change nothing to what they read: this host, a captured tree, a bundle."""

from __future__ import annotations

from typing import Any, List, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root


def opened_root(module: AnsibleModule) -> Tuple[Root, List[Any]]:
    """Return the tree that the option root names, and devices that its catalogue has beyond the built-in ones.

    Ends the module with one sentence if there is no such tree.
    """
    path = module.params["root"]
    if path == "/":
        return Root(path), []
    # Compiled at every run where the host has no agent: only who reads a bundle pays for it.
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import BundleError, open_root

    try:
        opened = open_root(path)
    except BundleError as error:
        module.fail_json(msg="root: %s" % error)
    except OSError as error:
        module.fail_json(msg="root: %s: %s" % (error.filename, error.strerror))
    return opened.root, opened.devices
