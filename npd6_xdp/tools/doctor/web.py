# SPDX-License-Identifier: GPL-2.0-or-later
"""The web configuration, where there is one: whether a start or a reload would take it, with the files it names."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import Npd6Error
from npd6_xdp.tools.doctor.facts import Facts, WebFacts
from npd6_xdp.tools.doctor.finding import Finding, fail, ok, warn
from npd6_xdp.tools.web_file import look


def read_web_files(config: Config) -> WebFacts:
    """What is wrong with it, and what is unwise, as this user finds it."""
    try:
        return WebFacts(warned=tuple(look(config)))
    except Npd6Error as error:
        return WebFacts(tuple(str(error).splitlines()))


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of it."""
    path = facts.config.metrics_web_config
    if not path:
        return
    for line in facts.web.refused:
        yield fail("web_config", line)
    for line in facts.web.warned:
        yield warn("web_config", line)
    if not any(facts.web):
        yield ok("web_config", f"{path} can be used, with the files that it names")
