# SPDX-License-Identifier: GPL-2.0-or-later
"""What `init` says to do can be copied into a root shell, whatever interfaces are called; and what it takes to say."""

from __future__ import annotations

import shlex
import sys
from itertools import count
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.tools.init.decide import decide
from npd6_xdp.tools.init.plan import Setting
from npd6_xdp.tools.init.settings import ways_back
from npd6_xdp.tools.init.text import proof
from npd6_xdp.tools.init.write import for_next_boot, is_kept, keep
from tests.tools.init.machines import Sketch


def site(interfaces: int) -> Sketch:
    """A router with so many VLAN devices, each with a prefix of its own."""
    sketch = Sketch().link("lo").link("eth0").address("2001:db8::2/64", "eth0").route("default", "eth0", "fe80::1")
    sketch.link("trunk")
    for number in range(interfaces):
        name = f"vlan{number}"
        sketch.link(name, "vlan", parent="trunk", vlan=number % 4094 + 1)
        sketch.address(f"fe80::{number + 1:x}/64", name).address(f"2001:db8:1:{number:x}::1/64", name)
    return sketch


def test_commands_have_each_name_as_one_word() -> None:
    up, lan = "$(id);u", "l&'n"
    sketch = Sketch().link("lo").link(up).address("2001:db8:1::2/64", up, "ra").route("default", up, "fe80::1", "ra")
    machine = sketch.link(lan, "bridge").address("2001:db8:1::3/64", lan).hears(up).machine
    plan = decide(machine)
    commands = [command for step in plan.steps for command in step.commands]
    assert any(lan in shlex.split(command) for command in commands)
    lines = [*commands, *ways_back(machine, plan.settings), *proof(plan, "")]
    odd = [line for line in lines if "$" in line or "&" in line]
    assert len(odd) >= 3
    for line in odd:
        assert {f"net/ipv6/conf/{up}/accept_ra=1", up, lan} & set(shlex.split(line)), line


def calls(sketch: Sketch) -> int:
    """How many calls it takes to decide."""
    machine, counted = sketch.machine, count()
    sys.setprofile(lambda *_: next(counted) and None)
    try:
        decide(machine)
    finally:
        sys.setprofile(None)
    return next(counted)


def test_the_work_grows_with_the_interfaces_and_not_with_their_square() -> None:
    few, many = calls(site(100)), calls(site(400))
    assert many < 8 * few, (few, many)


def test_the_next_boot_has_what_is_so_only_until_then_where_forwarding_would_cut_this_machine_off() -> None:
    up = Sketch().link("lo").link("eth0").address("2001:db8:1::2/64", "eth0", "ra")
    up = up.route("default", "eth0", "fe80::1", "ra").hears("eth0").link("br0", "bridge")
    for accept_ra, forwarding in (("2", "0"), ("1", "0"), ("1", "1")):
        plan = decide(up.sysctl("conf/eth0/accept_ra", accept_ra).sysctl("conf/all/forwarding", forwarding).machine)
        lines = [line for line in for_next_boot(plan.lasting).splitlines() if not line.startswith("#")]
        assert lines[:2] == ["net/ipv6/conf/eth0/accept_ra = 2", "net.ipv6.conf.all.forwarding = 1"], accept_ra
        assert all(each.now != each.value for each in plan.settings)


def test_what_a_file_of_sysctls_cannot_say_is_seen_before_anything_is_set(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match='the interface\'s name has a "="'):
        is_kept([Setting("conf/a=b/accept_ra", "1", "2", "it goes on")], tmp_path / "90.conf")
    path = tmp_path / "91.conf"
    assert keep([Setting(r"conf/a\xff/accept_ra", "1", "2", "it goes on")], path)
    assert b"net/ipv6/conf/a\xff/accept_ra = 2\n" in path.read_bytes()
    assert is_kept([Setting(r"conf/a\xff/accept_ra", "1", "2", "it goes on")], path)
