# SPDX-License-Identifier: GPL-2.0-or-later
"""The Ansible role against two machines, throwaway roots with a systemd each: one of them is the edge of a topology."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.config_file import parse
from npd6_xdp.lab.topology import Topology
from tests.netns.wire import Wire, question
from tests.roots import PROJECT, Root, fresh_root

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
CONFIGURATION = "etc/npd6-xdp/npd6-xdp.toml"
PLAY = """\
- hosts: all
  gather_facts: false
  roles: [npd6_xdp]
"""


def interfaces(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "wan0", "collect_targets": 10, "rule": [*rules]}]


ONE = {"prefix": "2001:db8:2::/64", "method": "static"}
TWO = {"prefix": "2001:db8:3::/64", "method": "static", "router": False, "exclude": ["::1", "::2"]}
BAD = {"prefix": "2001:db8:3::/64", "metod": "static"}


class Play:
    """What `ansible-playbook` did: its output, and for each host how many of its tasks were changed and failed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.said = done.returncode, done.stdout + done.stderr
        recap = re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)", self.said, re.MULTILINE)
        self.changed = {host: int(changed) for host, changed, _ in recap}
        self.failed = {host: int(failed) for host, _, failed in recap}


class Control:
    """The machine that Ansible runs on."""

    def __init__(self, place: Path, roots: dict[str, Root], deb: Path) -> None:
        self._place, self._deb = place, deb
        (place / "play.yml").write_text(PLAY)
        hosts = {name: {"ansible_host": str(root.init)} for name, root in roots.items()}
        shared = {"ansible_connection": "throwaway", "ansible_python_interpreter": "/usr/bin/python3"}
        (place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
        own = {"HOME": str(place), "ANSIBLE_HOME": str(place / "home"), "LC_ALL": "C.UTF-8"}
        self._environment = (
            os.environ
            | own
            | {
                "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).with_name("ansible")),
                "ANSIBLE_ROLES_PATH": str(PROJECT / "deploy/ansible/roles"),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_INVENTORY_ENABLED": "yaml",
                "ANSIBLE_YAML_FILENAME_EXTENSIONS": ".json",
                "ANSIBLE_LOCALHOST_WARNING": "0",
            }
        )

    def play(self, *options: str, **variables: object) -> Play:
        """Run the role."""
        given = json.dumps({"npd6_xdp_deb": str(self._deb), **variables})
        files = [str(PLAYBOOK), "-i", f"{self._place}/hosts.json", f"{self._place}/play.yml"]
        done = subprocess.run(
            [*files, "-e", given, *options],
            cwd=self._place,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        print(done.stdout + done.stderr)
        return Play(done)


@pytest.fixture
def roots(installed: Root, topology: Topology) -> Iterator[dict[str, Root]]:
    """Two that have what the package depends on, and not the package."""
    where = {"edge": topology.name("edge"), "apart": None}
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(fresh_root(over=installed, namespace=at, boot=True)) for name, at in where.items()
        }
        for root in found.values():
            root.run("apt-get", "-qy", "purge", "npd6-xdp")
            (root.path / "etc/apt/apt.conf.d/95locks").write_text('Debug::NoLocking "true";\n')  # archives are shared
        yield found


@pytest.mark.large
def test_the_role_installs_gates_and_reloads(
    roots: dict[str, Root], deb: Path, topology: Topology, tmp_path: Path
) -> None:
    control = Control(tmp_path, roots, deb)
    play = control.play("--check", npd6_xdp_interfaces=interfaces(ONE))
    assert play.failed == {"edge": 0, "apart": 0}, "there is nothing yet to look at"
    assert not any((root.path / "usr/bin/npd6-xdp").exists() for root in roots.values())
    with Wire(topology) as wire:
        assert control.play(npd6_xdp_interfaces=interfaces(ONE)).failed == {"edge": 0, "apart": 0}
        for root in roots.values():
            assert root.systemctl("is-enabled", "npd6-xdp") == "enabled"
            assert root.systemctl("is-active", "npd6-xdp") == "active"
            (entry,) = parse((root.path / CONFIGURATION).read_text(), "f").interfaces
            assert (entry.name, entry.collect_targets, [rule.prefix for rule in entry.rules]) == (
                ("wan0", 10, ["2001:db8:2::/64"])
            )
        assert wire.ask(question("2001:db8:2::7")) is not None

        play = control.play(npd6_xdp_interfaces=interfaces(ONE))
        assert (play.status, play.changed) == (0, {"edge": 0, "apart": 0}), "a second time it changes nothing"

        before = (roots["edge"].path / CONFIGURATION).read_bytes()
        play = control.play("--check", "--diff", npd6_xdp_interfaces=interfaces(ONE, TWO))
        assert (play.status, play.changed) == (0, {"edge": 1, "apart": 1})
        assert '+prefix = "2001:db8:3::/64"' in play.said
        for options in (("--check",), ()):
            play = control.play(*options, npd6_xdp_interfaces=interfaces(ONE, BAD))
            assert play.failed == {"edge": 1, "apart": 1}
            assert 'unknown key \\"metod\\"; did you mean \\"method\\"?' in play.said.replace('\\\\"', '\\"')
        assert (roots["edge"].path / CONFIGURATION).read_bytes() == before
        assert wire.ask(question("2001:db8:3::7"), 0.1) is None
        assert wire.ask(question("2001:db8:2::7")) is not None

        play = control.play(npd6_xdp_interfaces=interfaces(ONE, TWO), npd6_xdp_metrics={"listen": ""})
        assert play.failed == {"edge": 0, "apart": 0}
        assert wire.ask(question("2001:db8:3::7")) is not None, "it was reloaded"
        assert wire.ask(question("2001:db8:3::1"), 0.1) is None
        temporary = roots["edge"].run("find", "/tmp", "-name", "*.toml").stdout  # noqa: S108 (the root's)
        assert temporary == "", "what was only tried is gone"
