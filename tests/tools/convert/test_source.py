# SPDX-License-Identifier: GPL-2.0-or-later
"""An ndppd.conf that a daemon runs by: as far as ndppd goes on, so does this, and says what it goes on without."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.tools.convert import convert, convert_ndppd
from npd6_xdp.tools.convert.source import NdppdFile
from tests.tools.convert.test_any_file import PIECES, ndppd_files

GOOD = "rule 2::/64 {\n static\n }\n"


def load(text: str, tmp_path: Path) -> Config:
    file = tmp_path / "f"
    file.write_text(text)
    return NdppdFile(file).load()


def losses(text: str) -> list[str]:
    return [loss.removeprefix("f:") for loss in convert_ndppd(text, "f").losses]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (f"proxy wan0 {{\n rule 2001:db8::g {{\n static\n }}\n{GOOD} }}", ["2: rule: must be an IPv6 address"]),
        (f"proxy wan0 {{\n rule 2001:db8::/129 {{\n static\n }}\n{GOOD} }}", ["2: rule: must be an IPv6 address"]),
        (f"proxy wan0 {{\n rule 1::/64 {{\n iface wan0\n }}\n{GOOD} }}", ["3: iface wan0: the question comes"]),
        (
            f"proxy wan0 {{\n rule 1::/64 {{\n iface a:1\n }}\n{GOOD} }}",
            ['3: iface: an interface\'s name holds no ":"'],
        ),
        (f"proxy wan0 {{\n ; {GOOD} }}", ['2: unexpected ";"']),
        (f"proxy wan0 {{\n{GOOD} }}\n}}\nproxy wan1 {{\n{GOOD} }}", ['6: this "}" closes nothing']),
    ],
)
def test_what_ndppd_goes_on_without_is_left_out_and_said(text: str, want: list[str], tmp_path: Path) -> None:
    found = losses(text)
    assert len(found) == len(want)
    assert all(loss.startswith(part) for loss, part in zip(found, want, strict=True)), found
    assert all(loss.endswith("; left out, as ndppd goes on without it") for loss in found)
    config = load(text, tmp_path)
    assert [[rule.prefix for rule in each.rules] for each in config.interfaces] == [["2::/64"]]
    assert [remark.text.split(":", 1)[1] for remark in config.remarks if remark.lost] == found
    with pytest.raises(ConfigError):
        convert(text, "f")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "route-ttl 2147483647\n",
        "prefix = 1:2:3:4:\n",
        "proxy wan0 {\n}\n",
        "proxy wan0 {\n rule g {\n static\n }\n }",
    ],
)
def test_a_file_without_any_rule_is_run_by_for_nothing(text: str, tmp_path: Path) -> None:
    config = load(text, tmp_path)
    assert config.interfaces == ()
    said = [remark.text for remark in config.remarks if remark.lost]
    assert said[0].endswith(":1: no rule: nothing is answered until the file has one, and is read again")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("proxy wan0 {\n rule 1::/64 {\n static\n", "its block is never closed"),
        ("proxy {\n rule 1::/64 {\n static\n }\n }", "proxy: an interface's name has"),
        ("proxy wan0 {\n rule {\n static\n }\n }", "rule: must be an IPv6 address"),
        ("proxy wan0 {\n rule 1::/64 {\n iface\n }\n }", "iface: an interface's name has"),
        ("proxy wan0 {\n rule 1::/64 {\n auto\n static\n }\n }", "only one of static, auto and iface"),
        ("proxy wan0 {\n rule 1::/64\n {\n static\n }\n }", 'this "{" belongs on the line of what it opens'),
    ],
)
def test_what_ndppd_refuses_is_refused(text: str, want: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=want):
        load(text, tmp_path)


@given(ndppd_files() | st.lists(PIECES | st.just("proxy a {"), max_size=30).map("".join))
@settings(deadline=None)
def test_what_can_be_converted_is_the_same_to_run_by(text: str) -> None:
    try:
        converted = convert(text, "f")
    except ConfigError:
        converted = None
    try:
        here = convert_ndppd(text, "f")
    except ConfigError:
        assert converted is None or converted.kind != "ndppd.conf"
        return
    if converted is not None and converted.kind == "ndppd.conf":
        assert (here.toml, here.remarks, here.losses) == (converted.toml, converted.remarks, ())
    elif not here.idle:
        parse(here.toml, "converted")
