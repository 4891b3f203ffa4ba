# SPDX-License-Identifier: GPL-2.0-or-later
"""The throwaway roots: what happens in one stays in it, and nothing of it stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from npd6_xdp.lab.processes import state_of
from tests.netns.wire import until
from tests.roots import PROJECT, ROOTS, Root, RootError, fresh_root

_HELD = """
import time
from tests.roots import fresh_root
with fresh_root() as root:
    print(root.init, flush=True)
    time.sleep(60)
"""


def test_what_is_written_in_one_stays_in_it(installed: Root) -> None:
    with fresh_root(over=installed) as root:
        root.run("rm", "-r", "/usr/share/npd6-xdp")
        assert root.run("npd6-xdp", "version", check=False).returncode == 127
        with pytest.raises(RootError, match="Read-only file system"):
            root.run("bash", "-c", "echo 0 > /proc/sys/kernel/printk")
    assert installed.run("npd6-xdp", "version").returncode == 0
    assert not (ROOTS / "base/usr/share/npd6-xdp").exists()


def test_nothing_stays_after_an_error(installed: Root) -> None:
    before = mounts()
    roots: list[Root] = []
    with suppress(ZeroDivisionError), fresh_root(over=installed, boot=True) as root:
        roots.append(root)
        assert len(groups(root)) == 1
        root.run("bash", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")  # of its own network
        raise ZeroDivisionError
    assert until(lambda: gone(roots[0].init))
    assert groups(roots[0]) == []
    assert until(lambda: not set(mounts()) - set(before)), "others may have some for a moment"


def test_nothing_runs_on_when_its_process_is_killed(installed: Root) -> None:
    with subprocess.Popen([sys.executable, "-c", _HELD], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        init = int(holder.stdout.readline())
        assert not gone(init)
        holder.send_signal(signal.SIGKILL)
    assert until(lambda: gone(init))


def test_nothing_of_the_base_is_made_on_when_who_makes_it_is_killed(debian: None, tmp_path: Path) -> None:
    with subprocess.Popen([PROJECT / "deploy/debian/root.sh", tmp_path], stdout=subprocess.DEVNULL) as maker:
        children = Path(f"/proc/{maker.pid}/task/{maker.pid}/children")
        assert until(lambda: "unshare" in map(name, children.read_text().split()), 10.0)
        outer = int(children.read_text())
        maker.send_signal(signal.SIGKILL)
    assert until(lambda: gone(outer))


def mounts() -> list[str]:
    """What this machine has mounted, but for the network namespaces, which others may make meanwhile."""
    return [line for line in Path("/proc/mounts").read_text().splitlines() if " nsfs " not in line]


def name(pid: str) -> str:
    """What a process is, "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def gone(pid: int) -> bool:
    """Whether a process has ended, though its parent may not have noticed yet."""
    try:
        return state_of(Path(f"/proc/{pid}")) == "Z"
    except FileNotFoundError:
        return True


def groups(root: Root) -> list[str]:
    """The root's cgroups that this machine has."""
    script = f"mount -t cgroup2 cgroup2 /mnt && find /mnt -maxdepth 1 -name {root.name}"
    found = subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True, check=True)
    return found.stdout.split()
