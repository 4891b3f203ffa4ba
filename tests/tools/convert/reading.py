# SPDX-License-Identifier: GPL-2.0-or-later
"""What a converted file says, and what is wrong with one that isn't converted."""

from __future__ import annotations

import tomllib
from ipaddress import IPv6Network
from typing import Any

import pytest

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.tools.convert import convert
from npd6_xdp.tools.convert.machine import NOTHING_KNOWN, Facts


def read(text: str, machine: Facts = NOTHING_KNOWN) -> tuple[list[dict[str, Any]], list[str]]:
    """The interfaces of a converted file, and its remarks; what holds for every file is asserted on the way."""
    done = convert(text, "f", machine)
    document = tomllib.loads(done.toml)
    assert set(document) == {"interface"}
    parse(done.toml, "converted")
    comments = [line.removeprefix("# ") for line in done.toml.splitlines() if line.startswith("# f:")]
    assert sorted(comments) == sorted(done.remarks), "each remark stands in the output, once"
    return document["interface"], [remark.removeprefix("f:") for remark in done.remarks]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        convert(text, "f")
    return [line.removeprefix("f:") for line in str(caught.value).splitlines()]


def matches(found: list[str], wanted: list[str]) -> bool:
    """Whether each line has the wanted part, in order, and there are no others."""
    return len(found) == len(wanted) and all(part in line for part, line in zip(wanted, found, strict=True))


MAPPED = str(IPv6Network("::ffff:0:0/96"))  # Python 3.13 writes it in another way


def rule(prefix: str, method: str, *via: str, **keys: object) -> dict[str, Any]:
    return {"prefix": prefix, "method": method, **({"via": [*via]} if via else {}), **keys}


def wan(*rules: dict[str, Any], **keys: object) -> list[dict[str, Any]]:
    return [{"name": "wan0", **keys, "rule": [*rules]}]


AUTO = "auto: ndppd asks for the host where its route leads"
PAIR = "prefix = 2001:db8:1:2:\ninterface = wan0\n"
RULE = {"prefix": "2001:db8:1:2::/64", "method": "static"}
WAN0 = {"name": "wan0", "rule": [RULE]}
