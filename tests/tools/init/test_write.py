# SPDX-License-Identifier: GPL-2.0-or-later
"""What `init` writes: whole, over no file of anybody's, and a line says why where it can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.tools.init.plan import Setting
from npd6_xdp.tools.init.write import for_next_boot, keep, write_new

ACCEPT = Setting("conf/eth0.100/accept_ra", "1", "2", "it goes on")
FORWARD = Setting("conf/all/forwarding", "0", "1", "a router")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_with_its_directory_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "etc/npd6-xdp/npd6-xdp.toml"
    write_new(path, "text ü\n")
    assert path.read_text() == "text ü\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert files(path.parent) == ["npd6-xdp.toml"]


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing", "directory"])
def test_what_is_there_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "it.toml", tmp_path / "other"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(other)
        if kind == "link":
            other.write_text("mine")
    before = files(tmp_path)
    with pytest.raises(MachineError, match="is there already, and init writes over no file: move it away") as raised:
        write_new(path, "ours")
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == before
    assert kind != "link to nothing" or not other.exists()
    assert kind != "link" or other.read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    with pytest.raises(MachineError, match=r"can't write .*: File exists"):
        write_new(tmp_path / "etc/npd6-xdp.toml", "ours")


def test_sysctls_for_the_next_boot_are_in_order_and_names_with_a_dot_survive(tmp_path: Path) -> None:
    path = tmp_path / "sysctl.d/90-npd6-xdp.conf"
    assert keep([ACCEPT, FORWARD], path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["net/ipv6/conf/eth0.100/accept_ra = 2", "net.ipv6.conf.all.forwarding = 1"]
    assert path.read_text() == for_next_boot([ACCEPT, FORWARD])


def test_a_file_of_sysctls_that_is_there_is_enough_or_is_left_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "90-npd6-xdp.conf"
    path.write_text("net.ipv6.conf.all.forwarding=1\n")
    assert not keep([FORWARD], path), "it says so already"
    with pytest.raises(
        MachineError, match=r"add to it: net/ipv6/conf/eth0.100/accept_ra = 2, net.ipv6.conf.all.forwarding = 1"
    ):
        keep([ACCEPT, FORWARD], path)
    assert path.read_text() == "net.ipv6.conf.all.forwarding=1\n"
