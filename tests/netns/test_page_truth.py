# SPDX-License-Identifier: GPL-2.0-or-later
"""What the status page says at a glance is so: in a real browser, of real daemons that work, don't, are gone or new."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.browser import Page
from tests.netns.test_page import data, get, needs_browser
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, flood, on_edge, scan, until

Start = Callable[..., RunningDaemon]

AXE = Path(__file__).resolve().parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"
LINE = "return document.querySelector('#plot path.line').getAttribute('d')"
FIGURES = "return [...document.querySelectorAll('#figures dd:not(.sub)')].map((each) => getComputedStyle(each).color)"
MANY = 4000
OFF = "wan0: forwarding is off, so method route finds no target there: sysctl -w net.ipv6.conf.all.forwarding=1"
FAILED = "the last reload failed; the configuration before it is in use"

pytestmark = needs_browser


def head(page: Page) -> str:
    return page.text("#state span")


def rules(many: int) -> list[str]:
    return [f"2001:db8:{number // 65536 + 1:x}:{number % 65536:x}::/64 static" for number in range(many)]


def test_it_is_degraded_by_the_same_problems_as_healthz_status_and_doctor(
    topology: Topology, daemon: Start, page: Page
) -> None:
    running = daemon(configuration("2001:db8:1::/64 route"))
    page.open()
    assert head(page) == "working"
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    running.write("nonsense = 1\n")
    assert verb(running, "reload").returncode == 1
    with Wire(topology) as wire:
        wire.send(*scan(100, "2001:db8:1::"))
    assert page.becomes(lambda: head(page) == "degraded: 2 problems", 15.0), head(page)
    notes = page.texts("#notes li")
    assert [note.splitlines()[0] for note in notes] == [f"{FAILED}:", OFF]
    assert "nonsense" in notes[0]
    assert get(running, "/healthz") == (200, f"degraded: 2 problems\n{FAILED}\n{OFF}\n".encode())
    said = data(running)
    assert said["state"] == "degraded"
    assert [each["kind"] for each in said["problems"]] == ["reload", "forwarding"]
    good = topology.directory / "good.toml"
    good.write_text(configuration("2001:db8:1::/64 route"))
    found = verb(running, "doctor", "--config", str(good)).stdout
    assert re.search(r"^note +daemon .*: degraded: 2 problems$", found, re.MULTILINE), found
    place = f"{said['host']}, namespace {said['namespace']}"
    assert said["namespace"] == topology.name("edge")
    assert page.text("#where") == place
    assert re.fullmatch(rf"▲ [\d.]+/s · {re.escape(place)} · npd6-xdp", page.run("return document.title"))


def test_where_no_interface_is_there_it_says_which_are(topology: Topology, daemon: Start, page: Page) -> None:
    running = daemon(configuration("2001:db8:1::/64 static").replace("wan0", "ens3"))
    page.open()
    assert head(page) == "not answering"
    (note,) = page.texts("#notes li")
    assert re.fullmatch(r"no configured interface exists: ens3 \(present: .*\blan0, .*wan0\)", note)
    assert page.text("#rules-more") == "None in use, since no configured interface exists.", (
        "there is a rule in the file"
    )
    assert get(running, "/healthz") == (503, f"not answering\n{note}\n".encode())


def test_of_a_daemon_that_is_gone_nothing_stands_there_as_if_it_were_so_and_the_next_goes_on(
    topology: Topology, daemon: Start, page: Page
) -> None:
    first = daemon(configuration("2001:db8:3::/64 static"))
    flag = "return getComputedStyle(document.querySelector('#interfaces .flag')).color"
    page.open()
    assert page.becomes(lambda: page.text("#interfaces .flag span") == "up")
    with flood(topology, cycle(scan(64, "2001:db8:3::")), 100):
        assert page.becomes(lambda: page.total("answered_xdp") > 300, 10.0)
    assert page.becomes(lambda: page.total("answered_xdp") == first.solicitations()["answered_xdp"]), "the last of it"
    up, shown = page.run(flag), page.text("#figure-asked .sub")
    clock = page.run("return getComputedStyle(document.querySelector('#clock')).color")
    assert clock not in page.run(FIGURES)
    first.kill()
    assert page.becomes(lambda: head(page) == "not answering")
    assert re.fullmatch(r"last seen \d\d:\d\d:\d\d, \d+ s ago", page.text("#clock"))
    assert page.texts(".times span") == ["5 min before", "last seen"], "which may be hours ago"
    assert page.run(flag) != up
    greyed = page.run("return getComputedStyle(document.querySelector('#clock')).color")
    assert page.run(flag) == greyed
    assert set(page.run(FIGURES)) == {greyed}
    assert page.run(
        "return getComputedStyle(document.querySelector('#interfaces .flag span'), '::before').content"
    ) == ('"was "')
    assert page.text("#figure-asked .sub") == shown
    assert page.run("return document.title").startswith("✕ ")
    daemon(configuration("2001:db8:3::/64 static"))
    assert page.becomes(lambda: head(page) == "working")
    with flood(topology, cycle(scan(64, "2001:db8:3::")), 100):
        assert page.becomes(lambda: page.run(LINE).count("M") == 2, 10.0), "before the gap, and after it"
    assert page.has("#plot rect.gap")
    assert page.texts(".times span") == ["5 min ago", "now"]
    assert not page.has(".gone")


def test_what_was_before_the_page_was_opened_is_the_daemons_to_tell_also_of_the_one_before(
    topology: Topology, daemon: Start, page: Page
) -> None:
    environment = {"RUNTIME_DIRECTORY": str(topology.directory)}
    first = daemon(configuration("2001:db8:3::/64 static"), environment=environment)
    with flood(topology, cycle(scan(64, "2001:db8:3::")), 100):
        assert until(lambda: first.solicitations().get("answered_xdp", 0) > 700, 20.0)
    first.stop()
    assert (topology.directory / "samples").exists()
    second = daemon(configuration("2001:db8:3::/64 static"), environment=environment)
    assert not (topology.directory / "samples").exists()
    page.open()
    assert page.becomes(lambda: page.has("#plot rect.gap"))
    page.run("document.querySelector('#plot').focus()")
    page.press("#plot", *[Keys.ARROW_LEFT] * 2)
    assert re.fullmatch(r"\d\d:\d\d:\d\d: asked [\d.,]+/s, answered [\d.,]+/s", page.text("#read"))
    assert second.solicitations().get("answered_xdp", 0) == 0
    heights = [float(y) for y in re.findall(r",([\d.]+)", page.run(LINE))]
    assert min(heights) < 60, "what the first one has answered"


def test_of_thousands_of_rules_a_hundred_are_there_at_a_time(topology: Topology, daemon: Start, page: Page) -> None:
    daemon(configuration(*rules(MANY)))
    page.open()
    page.resize(390)
    where = "#rules-pages span"
    assert page.becomes(lambda: page.text(where) == "1–25 of 4,000 rules", 15.0), page.text(where)
    assert len(page.texts("#rules tr")) == 25
    assert page.run("return document.scrollingElement.scrollWidth <= innerWidth")
    assert page.run("return document.scrollingElement.scrollHeight") < 8_000
    page.resize(1120)
    assert page.becomes(lambda: len(page.texts("#rules tr")) == 100)


def shown(page: Page) -> list[str]:
    return [row.split()[0] for row in page.texts("#rules tr")]


def test_rules_are_searched_filtered_ordered_and_turned_over_by_keys_alone(
    topology: Topology, daemon: Start, page: Page
) -> None:
    on_lan = configuration("2001:db8:f::/64 static").replace("wan0", "lan0")
    daemon(configuration("2001:db8:ffff::/64 ignore", *rules(MANY)) + on_lan)
    with Wire(topology) as wire:
        wire.send(*scan(900, "2001:db8:1:f9f::"), *scan(3, "2001:db8:ffff::"))
    page.open()
    page.resize(1120)

    def typed(control: str, text: str) -> None:
        page.tab_to(control)
        page.press_focused(text)

    where, following = "#rules-pages span", "#rules-pages button:last-child"
    assert page.becomes(lambda: page.text(where) == "1–100 of 4,002 rules", 15.0), page.text(where)
    assert shown(page)[:2] == ["2001:db8:ffff::/64", "2001:db8:1:0::/64"], "as in the file"
    page.tab_to(following)
    page.press_focused(Keys.ENTER)
    assert page.text(where) == "101–200 of 4,002 rules"
    assert shown(page)[0] == "2001:db8:1:63::/64"
    typed("#order", "prefix")
    assert page.text(where) == "1–100 of 4,002 rules"
    assert shown(page) == [f"2001:db8:1:{number:x}::/64" for number in range(100)]
    typed("#search", "1:f9")
    assert shown(page) == [f"2001:db8:1:{number:x}::/64" for number in (0xF9, *range(0xF90, 0xFA0))]
    typed("#order", "most asked")
    assert shown(page)[0] == "2001:db8:1:f9f::/64"
    typed("#order", "busiest now")
    with flood(topology, cycle(scan(64, "2001:db8:1:f95::")), 100):
        assert page.becomes(lambda: shown(page)[0] == "2001:db8:1:f95::/64", 15.0), shown(page)
    typed("#order", "most asked")
    page.tab_to("#search")
    page.press_focused(Keys.CONTROL + "a" + Keys.NULL, Keys.DELETE)
    typed("#of-outcome", "ignored")
    assert shown(page) == ["2001:db8:ffff::/64"]
    typed("#of-outcome", "all")
    typed("#of-interface", "lan0")
    assert shown(page) == ["2001:db8:f::/64"]
    typed("#of-interface", "wan0")
    assert page.text(where) == "1–100 of 4,001 rules"
    typed("#search", "2001:db8:f::")
    assert page.text("#rules-more") == "No rule matches."
    assert page.complaints() == []


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core here, which npm fetches: deploy/setup.sh --test")
def test_axe_finds_nothing_serious_in_whatever_state_it_is(topology: Topology, daemon: Start, page: Page) -> None:
    running = daemon(configuration(*rules(MANY)) + configuration("2001:db8:f::/64 route").replace("wan0", "lan0"))
    on_edge(topology, "link set lan0 down")
    with Wire(topology) as wire:
        wire.send(*scan(50, "2001:db8:1:1::"))
    page.open()
    script = AXE.read_text()

    def serious() -> list[str]:
        found = []
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            for width in (390, 1120):
                page.resize(width)
                found += [f"{scheme} {width}: {each}" for each in page.axe(script)]
        return found

    assert page.becomes(lambda: page.text("#rules-pages span").endswith("of 4,001 rules"), 15.0)
    assert head(page).startswith("degraded")
    assert serious() == []
    running.kill()
    assert page.becomes(lambda: head(page) == "not answering")
    assert serious() == []
    page.run(
        "const search = document.querySelector('#search'); search.placeholder = '';"
        "document.querySelector('.tools').append(search)"
    )
    assert "label: ['#search']" in page.axe(script), "what is a fault is found"
