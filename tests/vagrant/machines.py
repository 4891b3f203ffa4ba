# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of the Vagrantfile without a hypervisor: each a root with a systemd of its own, wired as it says.

What Vagrant does to a virtual machine is done to them here: interfaces with the MAC addresses that it gives, on a
switch for each network; an eth0 that is Vagrant's own; the tree at /vagrant; a user "vagrant" who may use sudo. They
have no way out: what they install is in caches.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.netns.wire import until
from tests.roots import PROJECT, ROOTS, Root, fresh_root

NAT_ADDRESS = "10.0.2.15/24"
"""Of eth0, by which Vagrant comes in."""

GRAFANA = "grafana.sh"
"""Which script can't be run to its end, as its vendor's repository is out of reach."""

# What a Debian box has, as far as it matters here, and minbase hasn't. What takes long to no end is left out: bytecode
# of all that pip installs, and links to a hundred certificates where nobody is to be reached.
_BOX = ("dbus", "iproute2", "sudo", "systemd-sysv")
_WHEELS = ROOTS / "wheels"
_PREPARE_BOX = r"""
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/vagrant
printf '[global]\nno-index = true\nfind-links = /var/cache/wheels\n[install]\nno-compile = true\n' > /etc/pip.conf
echo 'Acquire::Retries "0";' > /etc/apt/apt.conf.d/91offline
echo ca-certificates ca-certificates/trust_new_crts select no | debconf-set-selections
"""
# What apt has fetched is all machines', and each would lock out the others: so each has a layer of its own.
_PREPARE_MACHINE = r"""
hostname "$1"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$1" > /etc/hosts
mkdir -p /run/box/upper /run/box/work
cd /var/cache/apt
mount -t overlay -o lowerdir=archives,upperdir=/run/box/upper,workdir=/run/box/work overlay archives
ip link set lo up
ip address add "$2" dev eth0
ip link set eth0 up
"""
# `vagrant` for demo.sh. Of ssh it knows what demo.sh says: ssh MACHINE -c COMMAND -- -T.
_VAGRANT = """#!/usr/bin/env bash
set -euo pipefail
case $1 in
    up) exit ;;
    ssh) [ "$3 $5 $6" = "-c -- -T" ] || exit 64 ;;
    *) exit 64 ;;
esac
case $2 in
{machines}
esac
exec "${{words[@]}}" runuser -l vagrant -c "$4"
"""
_CONFIG = Path(__file__).with_name("config.rb")


def config(provider: str = "virtualbox") -> dict[str, Any]:
    """What Vagrant itself reads in the Vagrantfile, by machine."""
    done = subprocess.run(
        ["ruby", _CONFIG, PROJECT, provider], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def environment() -> dict[str, str]:
    """For Vagrant to leave no file in the tree or at home."""
    directory = ROOTS / "vagrant"
    return {**os.environ, "VAGRANT_HOME": f"{directory}/home", "VAGRANT_DOTFILE_PATH": f"{directory}/machines"}


class Lab:
    """The machines, up and not provisioned: `roots` by name."""

    def __init__(self, config: dict[str, Any], roots: dict[str, Root]) -> None:
        self._config = config
        self.roots = roots

    def provision(self) -> dict[str, str]:
        """Run the scripts that Vagrant would, all machines at once, but for GRAFANA; what each machine wrote."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(self.roots, pool.map(self._provision, self.roots), strict=True))

    def _provision(self, name: str) -> str:
        lines = [line for line in self._config[name]["scripts"] if not line.endswith(f"/{GRAFANA}")]
        return "".join(self.roots[name].run("bash", "-c", line).stdout for line in lines)

    def vagrant(self, path: Path) -> None:
        """Make a command `vagrant` that reaches these machines."""
        lines = [f"    {name}) words=({shlex.join(root.words())}) ;;" for name, root in self.roots.items()]
        path.write_text(_VAGRANT.format(machines="\n".join(lines)))
        path.chmod(0o755)


@contextmanager
def lab() -> Iterator[Lab]:
    """The machines, while the block runs."""
    found = config()
    wires = {
        name: {network["libvirt__network_name"]: network["mac"] for network in machine["networks"] if "mac" in network}
        for name, machine in found.items()
    }
    with ExitStack() as stack:
        box = stack.enter_context(_box(found))
        switches = stack.enter_context(
            _switches({"nat", *(network for networks in wires.values() for network in networks)})
        )
        roots = {}
        for name, networks in wires.items():
            roots[name] = stack.enter_context(fresh_root(over=box, boot=True))
            for number, (network, mac) in enumerate({"nat": None, **networks}.items()):
                _plug(switches, network, roots[name].init, f"eth{number}", mac)
            roots[name].run("bash", "-ec", _PREPARE_MACHINE, "bash", name, NAT_ADDRESS)
        yield Lab(found, roots)


@contextmanager
def _box(found: dict[str, Any]) -> Iterator[Root]:
    with fresh_root() as box:
        box.install(*_BOX)
        box.run("bash", "-ec", _PREPARE_BOX)
        shutil.copytree(_wheels(), box.path / "var/cache/wheels")
        (folder,) = found["edge"]["folders"].values()
        shutil.copytree(PROJECT, box.path / "vagrant", ignore=_excluded(folder["rsync__exclude"]))
        yield box


def _excluded(patterns: list[str]) -> Callable[[str, list[str]], list[str]]:
    """What rsync leaves out by these patterns, for copytree(). A slash in front means the top only."""

    def ignore(directory: str, names: list[str]) -> list[str]:
        shape = "/{}" if directory == str(PROJECT) else "{}"
        return [n for n in names if any(fnmatch(n, each) or fnmatch(shape.format(n), each) for each in patterns)]

    return ignore


def _wheels() -> Path:
    """The wheels of what the project needs to be installed, fetched if they aren't there."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    complete = _WHEELS / "complete"
    if not complete.exists() or complete.read_text() != "\n".join(wanted):
        shutil.rmtree(_WHEELS, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-qq", "--dest", _WHEELS, *wanted], check=True)
        complete.write_text("\n".join(wanted))
    return _WHEELS


@contextmanager
def _switches(networks: set[str]) -> Iterator[int]:
    """A process whose network namespace has a bridge for each network; its id."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
    try:
        own = Path("/proc/self/ns/net").readlink()
        assert until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own)
        for network in networks:
            _ip(process.pid, "link", "add", network, "type", "bridge")
            _ip(process.pid, "link", "set", network, "up")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _plug(switches: int, network: str, machine: int, interface: str, mac: str | None) -> None:
    """Give a machine an interface on a network, with a MAC address as Vagrant has it: "020000000042"."""
    port = f"{interface}-{machine}"
    address = ["address", ":".join(mac[digit : digit + 2] for digit in range(0, 12, 2))] if mac else []
    _ip(switches, "link", "add", port, "type", "veth", "peer", "name", interface, *address, "netns", str(machine))
    _ip(switches, "link", "set", port, "master", network, "up")


def _ip(pid: int, *argv: str) -> None:
    subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *argv], check=True)
