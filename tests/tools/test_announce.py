# SPDX-License-Identifier: GPL-2.0-or-later
"""What `announce` asks of the daemon, and says of several answers together."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.tools import announce

MANY = [IPv6Address(f"2001:db8:1::{number:x}") for number in range(1, 201)]


class Daemon:
    """Takes so many questions; "2001:db8:1::1" is what no rule answers."""

    def __init__(self, takes: int) -> None:
        self.left = takes

    def ask(self, _control: Path, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to the verb announce."""
        if not self.left:
            raise MachineError("so many are being announced already; try again in some seconds")
        self.left -= 1
        targets = [target for target in question["targets"] if target != "2001:db8:1::1"]
        row = {"active": True, "role": "", "at_work": True, "remembers": False, "remembered": 0, "targets": targets}
        return {"interfaces": [{**row, "interface": "wan0"}, {**row, "interface": "wan1", "targets": []}]}


def test_of_many_targets_one_total_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(announce, "ask", Daemon(4).ask)
    assert announce.run(Path("control"), MANY, None) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("wan0: 199 targets\n", "npd6-xdp: 2001:db8:1::1: no rule answers it\n")


def test_where_it_is_too_many_it_says_how_many_were_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(announce, "ask", Daemon(2).ask)
    with pytest.raises(MachineError, match=r"in some seconds; the first 128 of 200 targets were taken$"):
        announce.run(Path("control"), MANY, None)
    assert capsys.readouterr().out == "wan0: 127 targets\n"
    with pytest.raises(MachineError, match=r"in some seconds$"):
        announce.run(Path("control"), MANY, None)


def test_a_target_with_a_zone_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "ask", Daemon(0).ask)
    targets = [IPv6Address("2001:db8:1::1"), IPv6Address("fe80::1%wan0")]
    with pytest.raises(UsageError) as refused:
        announce.run(Path("control"), targets, None)
    assert str(refused.value) == "fe80::1%wan0: a target has no zone; say fe80::1 --interface wan0"
    assert refused.value.exit_status == 2
