# SPDX-License-Identifier: GPL-2.0-or-later
"""Headless Chromium inside the edge, where the daemon listens on loopback."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from npd6_xdp.lab.topology import Topology
from tests.netns.wire import until

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
URL = "http://[::1]:9846/"

_MOST_TABS = 200

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)

_CONTRASTS = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = numbers(getComputedStyle(node).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const found = {};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
  const [a, b] = [luminance(numbers(getComputedStyle(node).color)), luminance(ground(node))].sort((x, y) => y - x);
  found[walker.currentNode.data.trim().slice(0, 40)] = (a + 0.05) / (b + 0.05);
}
return found;
"""


class Page:
    """The status page in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, url: str = URL) -> None:
        """Open it, and wait for the first numbers."""
        self._driver.get(url)
        assert until(lambda: self.text("#state span") != "connecting…"), self.complaints()

    def run(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """What is to be read there; "" if there is nothing."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        return [
            str(each)
            for each in self.run(
                "return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)", selector
            )
        ]

    def total(self, outcome: str) -> int:
        """How many solicitations the page says had an outcome."""
        return (
            int(self.text(f"#outcome-{outcome} .sum span").split()[0].replace(",", "") or 0)
            if self.has(f"#outcome-{outcome}")
            else 0
        )

    def has(self, selector: str) -> bool:
        return bool(self.run("return document.querySelector(arguments[0]) !== null", selector))

    def becomes(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        return until(condition, seconds)

    def resize(self, width: int, height: int = 900) -> None:
        """Another viewport, as a phone has one."""
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def prefer(self, scheme: str) -> None:
        """As the system would say: "dark" or "light"."""
        self._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def contrasts(self) -> dict[str, float]:
        """The contrast of each text with what is behind it (WCAG 2.1)."""
        return dict(self.run(_CONTRASTS))

    def press(self, selector: str, *keys: str) -> None:
        """Press keys there (selenium.webdriver.common.keys)."""
        self._driver.find_element(By.CSS_SELECTOR, selector).send_keys(*keys)

    def press_focused(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        ActionChains(self._driver).send_keys(*keys).perform()

    def tab_to(self, selector: str) -> None:
        """Press Tab from the page's beginning on until the focus is there, as who has no mouse does."""
        self.run("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
        for _ in range(_MOST_TABS):
            self.press_focused(Keys.TAB)
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return
        raise AssertionError(f"Tab doesn't come to {selector}")

    def choose(self, selector: str, value: str) -> None:
        """Have an input or a select be so, as if somebody had done it."""
        self.run(
            "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
            "node.dispatchEvent(new Event('input', { bubbles: true }))",
            *(selector, value),
        )

    def axe(self, script: str) -> list[str]:
        """What axe-core, whose script is given, takes for a serious or critical fault: rule and where it is."""
        if not self.run("return 'axe' in window"):
            self.run(script)
        found = self._driver.execute_async_script("axe.run().then(arguments[0])")
        grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
        return [f"{each['id']}: {node['target']}" for each in grave for node in each["nodes"]]

    def complaints(self) -> list[str]:
        """What the browser's console says."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requested(self) -> set[str]:
        """All that was asked for over a network since the last call, the browser's own pages left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
        return {url for url in urls if not url.startswith(("chrome:", "data:"))}

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """The whole page, or what the viewport shows, as PNG."""
        if whole:
            width = self.run("return innerWidth")
            self.resize(width, int(self.run("return document.documentElement.scrollHeight")))
            time.sleep(0.2)
        path.write_bytes(self._driver.get_screenshot_as_png())

    def _command(self, name: str, **parameters: Any) -> None:
        self._driver.execute_cdp_cmd(name, parameters)


@contextmanager
def browser(topology: Topology, directory: Path, *flags: str) -> Iterator[Page]:
    """A browser in the edge, with an empty profile under `directory`; the thread is in there meanwhile."""
    assert CHROMIUM, "chromium isn't installed: deploy/setup.sh --test"
    assert CHROMEDRIVER, "chromedriver isn't installed: deploy/setup.sh --test"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, *flags, f"--user-data-dir={directory / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with topology.inside("edge"):
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        try:
            yield Page(driver)
        finally:
            driver.quit()
