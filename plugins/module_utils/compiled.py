# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On a host that has the agent, a task runs the agent's compiled code instead of compiling the same sources again.

Ansible hands a module over as a zip file, and Python compiles what it imports from there at every run: on a small CPU
that is most of what a task without anything to change costs.
"""

from __future__ import annotations

import importlib
import os
import zipimport
from typing import Any

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.agent import CURRENT, is_sound, read_sums

LAYERS = ("observe", "decide", "act")


def prefer_compiled(agent: str = CURRENT) -> bool:
    """Let the layers be imported from AGENT's directory; tell whether it is done.

    Only if every module that this payload shares with the agent is the same to the byte, and its compiled form is
    whole. Call it before the layers are imported. Modules that the agent lacks still come from the payload.
    """
    agent = os.path.realpath(agent)  # what was checked is what is imported, whoever installs another one meanwhile
    home = os.path.join(agent, *__name__.split(".")[:-1])
    try:
        sums = read_sums(agent)
        packages = [importlib.import_module("%s.%s" % (__package__, layer)) for layer in LAYERS]
        for package, layer in zip(packages, LAYERS):
            loader: Any = package.__spec__.loader if package.__spec__ else None
            if not isinstance(loader, zipimport.zipimporter):
                return False
            for name in os.listdir(os.path.join(home, layer)):
                if not name.endswith(".py"):
                    continue
                try:
                    source = loader.get_data(os.path.join(package.__path__[0], name))
                except OSError:
                    continue  # of no use to this module, so Ansible has left it out
                if not is_sound(os.path.join(home, layer, name), source, sums):
                    return False
    except (ImportError, OSError, ValueError):
        return False
    for package, layer in zip(packages, LAYERS):
        package.__path__.insert(0, os.path.join(home, layer))
    return True
