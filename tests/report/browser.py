# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The system's Chromium without a window, and what it says of a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTHS = {"phone": 375, "tablet": 768, "desktop": 1440}
HEIGHT = 900
QUIET = (
    "--headless=new",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # a container's is small
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


class Browser:
    """One Chromium; a page is opened with a width and a colour scheme."""

    def __init__(self, directory: Path) -> None:
        browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        driver = shutil.which("chromedriver")
        if not browser or not driver:
            raise RuntimeError("chromium and chromedriver are needed: `make report` installs them")
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (*QUIET, f"--user-data-dir={directory}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def close(self) -> None:
        """End it."""
        self.driver.quit()

    def _ask(self, command: str, **given: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, given)

    def open(self, page: Path, width: int, scheme: str = "light", anchor: str = "", script: bool = True) -> None:
        """Open a page. Whatever the browser said earlier is forgotten."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 600
        )
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(page.as_uri() + anchor)

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console, and what the browser did of it, since this was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since this was last asked, without those that hold their data."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def run(self, script: str, *given: Any) -> Any:
        """Return what the body of a JavaScript function returns, with GIVEN as its arguments."""
        return self.driver.execute_script(script, *given)

    def shot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self._ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(taken["data"]))

    def media(self, kind: str) -> None:
        """Show the page as on "print" or on "screen"."""
        self._ask("Emulation.setEmulatedMedia", media=kind)
