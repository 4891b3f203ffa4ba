# SPDX-License-Identifier: GPL-2.0-or-later
"""Team devices as ports, set up as teamd would, but by hand: answered once, with the team's MAC, by any port of it."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire

# linux/genetlink.h and linux/if_team.h
_GENL_ID_CTRL, _CTRL_GETFAMILY, _CTRL_FAMILY_ID, _CTRL_FAMILY_NAME = 16, 3, 1, 2
_OPTIONS_SET = 1
_TEAM_IFINDEX, _LIST_OPTION, _ITEM_OPTION = 1, 2, 1
_OPTION_NAME, _OPTION_TYPE, _OPTION_DATA = 1, 3, 4
_NLA_U32, _NLA_STRING = 3, 5
_NLM_REQUEST, _NLM_ACK, _NLMSG_ERROR, _NESTED = 1, 4, 2, 1 << 15


class Team(NamedTuple):
    name: str
    mode: str
    datapath: str

    @property
    def ports(self) -> tuple[str, str]:
        return f"{self.name}-p0", f"{self.name}-p1"

    @property
    def askers(self) -> tuple[str, str]:
        return f"{self.name}-a0", f"{self.name}-a1"

    def __str__(self) -> str:
        return f"{self.name} ({self.mode}, {self.datapath})"


TEAMS = (
    Team("team0", "activebackup", "hybrid"),
    Team("team1", "roundrobin", "hybrid"),
    Team("team2", "activebackup", "python"),
)
_MORE = 0.3  # seconds for which a second answer is waited for


class Teams(Scene):
    kinds = ("team",)

    def build(self) -> str:
        ground = self.ground
        self.targets = 0
        self.wires: dict[Team, Wire] = {}
        for team in TEAMS:
            ground.ip("edge", f"link add {team.name} type team")
            self._set(team, "mode", _NLA_STRING, team.mode.encode() + b"\0")
            for port, asker in zip(team.ports, team.askers, strict=True):
                ground.cable(port, asker, up=False)
                ground.ip("upstream", f"link set {asker} up")
                ground.ip("edge", f"link set {port} master {team.name}")
            ground.ip("edge", f"link set {team.name} up")
            self._activate(team, 0)
            self.wires[team] = ground.wire(*team.askers)
        return "".join(
            interface(team.name, Rule("2001:db8:80::/64", "static"), datapath=team.datapath) for team in TEAMS
        )

    def check(self) -> None:
        ground = self.ground
        for team in TEAMS:
            ground.check_auto(team.name, "the driver refuses an XDP program in native mode")
            until(lambda team=team: "LOWER_UP" in ground.link(team.name)["flags"], 30.0)  # type: ignore[misc]
            if team.mode == "activebackup":
                self._ask(team, (0, 1), "by both")
                self._activate(team, 1)
                self._ask(team, (0, 1), "by both, when the other is active")
            else:
                self._ask(team, (0,), "by the first")
                self._ask(team, (1,), "by the second")
            ground.ip("edge", f"link set {team.ports[0]} nomaster", f"link set {team.ports[0]} up")
            self._ask(team, (1,), "when a port is released")
            found = self.wires[team].silent(self._target(), by=(0,))
            ground.check(f"{team}: what a released port receives", found, SILENCE)
            read = lambda team=team: ground.answered(team.name)  # noqa: E731
            ground.check_soon(f"{team}: answers are counted", read, self.wires[team].answered)

    def _ask(self, team: Team, by: tuple[int, ...], when: str) -> None:
        found = self.wires[team].ask(self._target(), self.ground.mac(team.name), by=by, more=_MORE)
        self.ground.check(f"{team}: {when}", found, ANSWER)

    def _target(self) -> str:
        self.targets += 1
        return f"2001:db8:80::{self.targets:x}"

    def _activate(self, team: Team, number: int) -> None:
        if team.mode == "activebackup":
            index = self.ground.link(team.ports[number])["ifindex"]
            self._set(team, "activeport", _NLA_U32, struct.pack("=I", index))

    def _set(self, team: Team, option: str, kind: int, value: bytes) -> None:
        """Set an option of a team device, in the generic netlink family of that name."""
        item = _attribute(_OPTION_NAME, option.encode() + b"\0")
        item += _attribute(_OPTION_TYPE, bytes([kind])) + _attribute(_OPTION_DATA, value)
        options = _attribute(_LIST_OPTION | _NESTED, _attribute(_ITEM_OPTION | _NESTED, item))
        index = _attribute(_TEAM_IFINDEX, struct.pack("=I", self.ground.link(team.name)["ifindex"]))
        with self.ground.topology.inside("edge"):
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)  # NETLINK_GENERIC
        with connection:
            name = _attribute(_CTRL_FAMILY_NAME, b"team\0")
            family = _family(_request(connection, _GENL_ID_CTRL, _CTRL_GETFAMILY, name))
            # Set it is; then the kernel tells who listens, and it is nobody, where teamd would be.
            with suppress(ProcessLookupError):
                _request(connection, family, _OPTIONS_SET, index + options)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _request(connection: socket.socket, family: int, command: int, attributes: bytes) -> bytes:
    """Send a request; what came before its acknowledgement. Raises OSError if the kernel refuses."""
    body = struct.pack("=BBH", command, 1, 0) + attributes
    connection.send(struct.pack("=IHHII", 16 + len(body), family, _NLM_REQUEST | _NLM_ACK, 0, 0) + body)
    answer = b""
    while True:
        data = connection.recv(65536)
        kind, error = struct.unpack_from("=H", data, 4)[0], struct.unpack_from("=i", data, 16)[0]
        if kind != _NLMSG_ERROR:
            answer += data
        elif error:
            raise OSError(-error, f"generic netlink: {os.strerror(-error)}")
        else:
            return answer


def _family(answer: bytes) -> int:
    """The number of the family, in the answer to CTRL_CMD_GETFAMILY."""
    offset = 20
    while offset < len(answer):
        size, kind = struct.unpack_from("=HH", answer, offset)
        if kind == _CTRL_FAMILY_ID:
            return int(struct.unpack_from("=H", answer, offset + 4)[0])
        offset += (size + 3) & ~3
    raise OSError("generic netlink: no family of teams")
