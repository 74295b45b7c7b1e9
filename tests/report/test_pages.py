# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages of a staged fleet in a browser: nothing fetched, nothing cut off, nothing complained of, and usable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from ansible_collections.edgenpu.tuning.tests.report.browser import WIDTHS, Browser

SCHEMES = ("light", "dark")
# Of what can be seen: does it stick out of the window, or is its text cut off? (1 for rounding)
STICKS_OUT = """
const wide = document.documentElement.clientWidth;
// For ears only; on a phone the headings of tables, too, since each value has its own beside it.
const unseen = "svg, option, .vh" + (matchMedia("(max-width: 44rem)").matches ? ", .stacked thead" : "");
return [...document.querySelectorAll("body *")].filter((one) => {
  if (one.closest(unseen) || !one.checkVisibility()) return false;
  const place = one.getBoundingClientRect();
  return place.width && (place.right > wide + 1 || place.left < -1 || one.scrollWidth > one.clientWidth + 1 &&
    getComputedStyle(one).display !== "inline" && one.clientWidth);
}).map((one) => one.outerHTML.slice(0, 120));
"""
# WCAG's contrast of every visible text with what is behind it, where that is less than 4.5.
PALE = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!/^rgba\\(.*, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("body *")].filter((one) => {
  if (one.closest(".vh, option, script") || !one.checkVisibility()) return false;
  if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) return false;
  const [high, low] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05) < 4.5;
}).map((one) => one.outerHTML.slice(0, 120));
"""


def names(browser: Browser) -> list[str]:
    """Return the boxes that the table shows, in its order."""
    links: list[WebElement] = browser.driver.find_elements(By.CSS_SELECTOR, "#boxes tbody a")
    return [link.text for link in links if link.is_displayed()]


def heading(browser: Browser, name: str) -> WebElement:
    """Return the button that sorts by a column."""
    found: WebElement = browser.driver.find_element(By.XPATH, f"//table[@id='boxes']//button[.='{name}']")
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_whole(browser: Browser, pages: Path, pictures: Path, width: str, scheme: str) -> None:
    """All pages, and in the fleet's each box; every <details> opened."""
    views = [(page, "") for page in sorted(pages.glob("*.html"))]
    index = pages / "index.html"
    browser.open(index, WIDTHS[width])
    anchors = browser.run("return [...document.querySelectorAll('#boxes tbody a')].map((one) => one.hash)")
    assert len(anchors) == 6
    for page, anchor in [*views, *((index, anchor) for anchor in anchors)]:
        browser.open(page, WIDTHS[width], scheme, anchor)
        if not anchor:
            browser.shot(pictures / f"{page.stem}-{width}-{scheme}.png")
        for state in ("closed", "open"):
            assert browser.run(STICKS_OUT) == [], f"{page.name}{anchor}, {state}"
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(PALE) == [], f"{page.name}{anchor}, {state}"
            browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.complaints() == []
        assert browser.requests() == [page.as_uri()]
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(245, 246, 248)", "dark": "rgb(15, 19, 23)"}[scheme]


def test_table_sorts(browser: Browser, pages: Path) -> None:
    browser.open(pages / "index.html", WIDTHS["desktop"])
    gravest_first = ["nas-cellar", "nas-lab", "nas-rack", "workstation", "kiosk-3", "nas-attic"]
    assert names(browser) == gravest_first
    heading(browser, "Box").click()
    assert names(browser) == sorted(gravest_first)
    heading(browser, "Box").send_keys(Keys.ENTER)
    assert names(browser) == sorted(gravest_first, reverse=True)
    heading(browser, "Cards").click()
    assert names(browser)[-3:] == ["nas-lab", "nas-rack", "workstation"], "numbers, not texts"
    browser.run("document.querySelector('[data-state=critical] td:nth-child(3)').dataset.sort = '15'")
    heading(browser, "To do").click()
    assert names(browser)[-1] == "nas-cellar", "15 is more than 3"
    told = browser.run("return [...document.querySelectorAll('th[aria-sort]')].map((one) => one.innerText.trim())")
    assert told == ["To do"]


def test_table_filters(browser: Browser, pages: Path) -> None:
    browser.open(pages / "index.html", WIDTHS["phone"])
    find = browser.driver.find_element(By.ID, "find")
    shown = browser.driver.find_element(By.ID, "shown")
    only = Select(browser.driver.find_element(By.ID, "only"))
    assert shown.text == "6 of 6 shown"
    find.send_keys("CM3588 irqbalance")
    assert names(browser) == ["nas-lab"], "words of the board and of a finding"
    find.clear()
    find.send_keys("x")
    find.send_keys(Keys.BACKSPACE)
    only.select_by_visible_text("broken")
    assert (names(browser), shown.text) == (["nas-cellar"], "1 of 6 shown")
    only.select_by_visible_text("fine")
    assert names(browser) == ["kiosk-3", "nas-attic"]
    find.send_keys("nowhere")
    assert names(browser) == []
    assert browser.driver.find_element(By.ID, "nothing").is_displayed()


@pytest.mark.parametrize("script", [True, False])
def test_row_opens_its_box_and_the_way_back(browser: Browser, pages: Path, script: bool) -> None:
    """By pointer and by keyboard, and without JavaScript."""
    browser.open(pages / "index.html", WIDTHS["desktop"], script=script)
    # DevTools' own look at the page works where its scripts are off.
    assert visible(browser, "fleet") and visible(browser, "controls") == script
    assert not visible(browser, "box-nas-rack")
    browser.driver.get((pages / "index.html").as_uri() + "#box-nas-rack")
    assert visible(browser, "box-nas-rack") and not visible(browser, "fleet")
    assert not visible(browser, "box-nas-lab")
    browser.driver.get((pages / "index.html").as_uri() + "#fleet")
    assert visible(browser, "fleet") and not visible(browser, "box-nas-rack")


def visible(browser: Browser, key: str) -> bool:
    """Tell whether an element takes any room; asked for without running a script in the page."""
    root = browser.driver.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
    node = browser.driver.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": f"#{key}"})["nodeId"]
    browser.driver.execute_cdp_cmd("CSS.enable", {})
    style = browser.driver.execute_cdp_cmd("CSS.getComputedStyleForNode", {"nodeId": node})["computedStyle"]
    return {one["name"]: one["value"] for one in style}["display"] != "none"


def test_row_is_opened_by_pointer_and_keyboard(browser: Browser, pages: Path) -> None:
    browser.open(pages / "index.html", WIDTHS["desktop"])
    row = browser.driver.find_element(By.XPATH, "//table[@id='boxes']//tr[contains(., 'nas-rack')]/td[last()]")
    ActionChains(browser.driver).move_to_element(row).click().perform()
    assert browser.driver.find_element(By.ID, "box-nas-rack").is_displayed()
    assert browser.run("return document.activeElement.id") == "box-nas-rack"
    browser.driver.back()
    assert browser.driver.find_element(By.ID, "fleet").is_displayed()
    browser.driver.find_element(By.LINK_TEXT, "nas-lab").send_keys(Keys.ENTER)
    article = browser.driver.find_element(By.ID, "box-nas-lab")
    assert article.is_displayed()
    summary = article.find_element(By.TAG_NAME, "summary")
    evidence = article.find_element(By.CSS_SELECTOR, "details dl")
    assert not evidence.is_displayed()
    summary.send_keys(Keys.SPACE)
    assert evidence.is_displayed()
    assert "/proc/irq/52/effective_affinity_list" in evidence.text


def test_what_a_screen_reader_is_told(browser: Browser, pages: Path) -> None:
    """Names and roles from the browser's own tree, on a phone, where rows are laid out as cards."""
    browser.open(pages / "index.html", WIDTHS["phone"], anchor="#box-nas-attic")
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in tree if not one["ignored"]]
    roles = {role for role, _name in told}
    assert {"main", "article", "heading", "list", "table", "rowheader", "columnheader", "cell"} <= roles
    assert ("table", "Interrupts of the cards") in told
    texts = " ".join(name for role, name in told if role == "StaticText")
    assert "182\u202f340 before, 172 since" in texts
    assert "0 before, 96\u202f204 since; serves 0003:31:00.0 now" in texts
    levels = [
        next(part["value"]["value"] for part in one["properties"] if part["name"] == "level")
        for one in tree
        if not one["ignored"] and one["role"]["value"] == "heading"
    ]
    assert levels[0] == 2 and set(levels[1:]) == {3}


def test_paper_shows_everything(browser: Browser, pages: Path) -> None:
    """Evidence is printed though it is folded, and what works only on a screen is not."""
    browser.open(pages / "index.html", WIDTHS["desktop"])
    browser.media("print")
    assert not browser.driver.find_element(By.ID, "controls").is_displayed()
    browser.open(pages / "nas-lab.html", WIDTHS["desktop"])
    height = "return document.querySelector('.findings details').getBoundingClientRect().height"
    folded = browser.run(height)
    browser.media("print")
    assert browser.run(height) > folded + 20


@pytest.mark.parametrize("page", ["box.html", "index.html"])
def test_hostile_texts_do_nothing(browser: Browser, hostile_pages: Path, page: str) -> None:
    browser.open(hostile_pages / page, WIDTHS["phone"])
    assert browser.complaints() == []
    assert browser.requests() == [(hostile_pages / page).as_uri()]
    assert browser.run("return document.querySelectorAll('img, [onerror], iframe, object').length") == 0
    assert browser.run("return document.scripts.length") == (1 if page == "index.html" else 0)
    assert browser.run("return document.body.textContent.includes(\"<script>alert('host')</script>\")")
    assert browser.run(STICKS_OUT) == []


def test_no_script_but_ours_may_run(browser: Browser, pages: Path) -> None:
    """Even if one came through: the page's own policy refuses it, and every fetch."""
    page = pages / "index.html"
    text = page.read_text(encoding="utf-8")
    smuggled = "<script>document.title = 'taken'</script><img src='http://192.0.2.1/x'>"
    page.write_text(text.replace("<main>", f"<main>{smuggled}"), encoding="utf-8")
    browser.open(page, WIDTHS["desktop"])
    assert browser.run("return document.title") == "6 boxes with NPU cards"
    refused: list[Any] = [one for one in browser.complaints() if "Content Security Policy" in one]
    assert len(refused) == 2
    assert names(browser)
