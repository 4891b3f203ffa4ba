# SPDX-License-Identifier: GPL-2.0-or-later
"""Reloads that are asked for while one runs are one more, whoever asks; and the end doesn't wait for them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.netns.wire import configuration, until

Start = Callable[..., RunningDaemon]

RULES = 60_000  # a reload takes long enough for what is asked meanwhile
DONE = "reload: the new configuration is in use"


def rules(count: int) -> str:
    return configuration(*(f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::/64 static" for n in range(1, count + 1)))


def begun(running: RunningDaemon) -> Callable[[], bool]:
    """Whether another reload has begun since: it has read its file's first lines then, by the time that it takes."""
    before = running.log.count("reload: read in")
    running.process.send_signal(signal.SIGHUP)
    time.sleep(0.15)
    return lambda: running.log.count("reload: read in") > before


def test_a_storm_of_reloads_is_one_more_and_each_asker_hears_of_one_that_began_after_he_asked(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(f'[daemon]\nlog_level = "debug"\n{rules(RULES)}', timeout=90.0)
    over = begun(running)
    assert not over(), "a reload is too fast here for what follows: take more rules"
    running.write(f'[daemon]\nlog_level = "debug"\n{rules(RULES + 1)}')
    answers: list[dict[str, Any]] = []
    askers = [
        threading.Thread(target=lambda: answers.append(ask(running.control, {"verb": "reload"}))) for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    for _ in range(12):
        running.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert not over(), "the reload was over too early for what was to be shown"
    for asker in askers:
        asker.join(300)
    assert [answer["rules"] for answer in answers] == [RULES + 1] * 8
    assert until(lambda: running.log.count(DONE) == 2)
    running.command("status")  # what is yet to come would come before
    assert running.log.count(DONE) == 2

    over = begun(running)
    waiting = threading.Thread(target=lambda: running.command("reload"))
    waiting.start()
    time.sleep(0.1)
    told = time.monotonic()
    running.process.terminate()
    assert until(lambda: "SIGTERM: ending" in running.log, 1.0)
    assert running.process.wait(20) == 0
    took = time.monotonic() - told
    assert took < 5.0  # a fraction of a second where nobody else is at work
    assert not over(), "the reload went on to its end"
    waiting.join()
    assert running.log.count(DONE) == 2
