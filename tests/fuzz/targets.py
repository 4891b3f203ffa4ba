# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers from bytes, each with samples of what it reads and what it may raise; what else it raises is a fault."""

from __future__ import annotations

import io
import json
import socket
import struct
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from npd6_xdp.core import plain_toml
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_parts import Assembly, parts
from npd6_xdp.core.config_words import Float
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError, MachineError, UsageError
from npd6_xdp.core.event import EVENT_SIZE, RECORD_SIZE, NsEvent
from npd6_xdp.core.icmpv6 import NeighborAdvertisement, NeighborSolicitation
from npd6_xdp.core.judgement import WORKING
from npd6_xdp.core.text import decode
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.control import ControlServer, Reply
from npd6_xdp.system.http.endpoint import _Handler
from npd6_xdp.system.http.site import Site
from npd6_xdp.tools import pcap
from npd6_xdp.tools.control import understood
from npd6_xdp.tools.convert import convert
from npd6_xdp.tools.web_file import MOST, parse_web

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """`check` takes any bytes, and raises nothing. `samples` are good ones, `words` what else is worth to stand there.

    `longest` is how many bytes it ever gets to read; 0 is as many as there are.
    """

    name: str
    check: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    longest: int = 0


# --- Packets ---


def _event(data: bytes) -> None:
    try:
        event = NsEvent.unpack(data)
    except struct.error:
        assert len(data) < EVENT_SIZE
    else:
        assert event.pack() == data[:EVENT_SIZE]
        assert len(event.vlan_tags()) in (0, 4, 8)
        assert event.is_dad in (True, False)
    try:
        run = list(NsEvent.unpack_run(data))
    except struct.error:
        assert len(data) % RECORD_SIZE
    else:
        assert len(run) == len(data) // RECORD_SIZE


def _solicitation(data: bytes) -> None:
    found = NeighborSolicitation.parse(data)
    assert found is None or isinstance(found, Reason | NeighborSolicitation) or found is Outcome.UNMATCHED
    if isinstance(found, NeighborSolicitation):
        assert found.target in data
        if not found.extended:
            assert isinstance(NeighborSolicitation.parse(found.serialize()), NeighborSolicitation)


def _advertisement(data: bytes) -> None:
    try:
        found = NeighborAdvertisement.parse(data)
    except ValueError:
        return
    assert found.serialize() == data[: len(found.serialize())]


@cache
def _frames() -> tuple[bytes, ...]:
    from tests.netns.wire import SETTING, question

    asked = NeighborSolicitation.parse(question("2001:db8:1::42"))
    assert isinstance(asked, NeighborSolicitation)
    answer = NeighborAdvertisement(
        eth_destination=SETTING.asker_mac,
        eth_source=SETTING.mac,
        tags=b"",
        source=asked.target,
        destination=asked.source,
        target=asked.target,
        link_layer_address=SETTING.mac,
        router=True,
        solicited=True,
        override=False,
    ).serialize()
    plain = question("2001:db8:1::42")
    tagged = plain[:12] + b"\x81\0\0\x64" + plain[12:]
    behind = plain[:20] + b"\0" + plain[21:54] + b"\x3a\0\x01\x04\0\0\0\0" + plain[54:]
    return plain, tagged, behind, answer


# --- Files ---


def _is_one_line(error: Exception) -> None:
    assert len(str(error).splitlines()) == 1, error


def _config(data: bytes) -> None:
    try:
        text = decode(data)
    except ValueError as error:
        _is_one_line(error)
        return
    plain = plain_toml.read(text)
    if plain is not None:  # else it is tomllib that reads or refuses
        assert repr(plain) == repr(tomllib.loads(text, parse_float=Float))
    found = _read(text)
    with patch.object(plain_toml, "read", return_value=None):
        assert found == _read(text), "by tomllib alone"
    if isinstance(found, Config):
        assert found == _read(text, found), "at a reload"
        assembly = Assembly()
        assert [assembly.add(part) for part in parts(found)][-1] == found


def _read(text: str, before: Config | None = None) -> Config | str:
    try:
        return parse(text, "f", before)
    except ConfigError as error:
        _told(error)
        return str(error)


def _told(error: ConfigError) -> None:
    """Whether it is bounded, and a line a mistake."""
    assert 1 <= len(error.mistakes) <= MOST_MISTAKES + 1
    assert len(str(error).splitlines()) == len(error.mistakes), str(error)
    assert len(str(error)) < 600 * len(error.mistakes)


def _web_file(data: bytes) -> None:
    try:
        text = decode(data)
    except ValueError:
        return
    try:
        parse_web(text, "f")
    except ConfigError as error:
        _told(error)


def _convert(data: bytes) -> None:
    try:
        text = decode(data)
    except ValueError:
        return
    try:
        found = convert(text, "f")
    except ConfigError as error:
        _told(error)
        return
    assert all(len(line.splitlines()) == 1 for line in found.remarks)
    parse(found.toml, "converted")


def _capture(data: bytes) -> None:
    try:
        for frame in pcap._numbered("f", io.BytesIO(data)):
            assert len(frame.data) <= len(data)
    except (UsageError, MachineError) as error:
        _is_one_line(error)


# --- Sockets ---


class _Ours:
    """A control server and a site that are there for all."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="npd6-xdp-fuzz-")
        self.path = str(Path(self.directory.name) / "control.sock")
        self.loop = Loop()
        self.server = ControlServer(self.path, self.loop, self._answer)
        self.site = Site(self._metrics, lambda: {"a": 1}, lambda: WORKING, {})

    @staticmethod
    def _answer(question: dict[str, Any], reply: Reply) -> None:
        match question.get("verb"):
            case "status":
                reply({"brief": question.get("brief") is True})
            case verb:
                reply({"error": f"unknown verb {verb!r}"})

    @staticmethod
    def _metrics(_: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"a 1\n"]


@cache
def _ours() -> _Ours:
    return _Ours()


def _question(data: bytes) -> None:
    ours = _ours()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0)
        client.connect(ours.path)
        ours.loop.turn(0.0)
        client.send(data[:65536])
        client.shutdown(socket.SHUT_WR)
        said = b""
        for _ in range(40):
            ours.loop.turn(0.0)
            try:
                piece = client.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionResetError:  # what was too long isn't read to its end
                break
            if not piece:
                break
            said += piece
        else:
            raise AssertionError("it neither answers nor hangs up")
    assert not ours.loop.failures.get(ControlServer.WHERE), ours.loop.failures
    if said:
        answer = json.loads(said)
        assert isinstance(answer, dict)
        assert answer.keys() <= {"brief", "error"}
    else:
        assert b"\n" not in data[:4096]


def _reply(data: bytes) -> None:
    try:
        found = understood(Path("/run/x.sock"), data)
    except MachineError:
        return
    assert isinstance(found, dict)


def _http(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(0)
        theirs.send(data[:100_000])
        theirs.shutdown(socket.SHUT_WR)
        try:
            _Handler(partial(_ours().site.answer, "::1"), ours, ("::1", 1, 0, 0), lambda *_: None)
        except OSError:  # as Endpoint takes it
            return
        ours.close()
        try:
            said = b"".join(iter(lambda: theirs.recv(1 << 16), b""))
        except ConnectionResetError:  # it has said more than is read
            return
    assert not said or said.startswith((b"HTTP/1.0 ", b"HTTP/1.1 ")), said[:100]
    assert len(said) < 1 << 20


# --- All of them ---

_NPD6 = (
    b"prefix=2001:db8:1:2:\ninterface=eth0\nlisttype=black\naddrlist=2001:db8:1:2::1\nexprlist=(a=&255)>10\n",
    b"prefix = 2001:db8::/56\ninterface = eth1\nrouterNA=true\nmaxHops=255\ncollectTargets=100\n# x\nlistlogging=on\n",
)
_NDPPD = (
    b"route-ttl 30000\nproxy eth0 {\n router yes\n ttl 30000\n rule 2001:db8:1::/64 {\n  static\n }\n"
    b" rule 2001:db8::/32 { auto }\n}\n",
    b"proxy eth1 { /* x */ rule 2001:db8:2::/64 { iface eth2\n autowire yes } rule 1:: { } // y\n promiscuous no\n}\n",
)


@cache
def targets() -> dict[str, Target]:
    """By name."""
    found = (*_of_the_wire(), *_configurations(), *_web_configurations(), *_of_captures(), *_of_clients())
    return {target.name: target for target in found}


def _of_the_wire() -> tuple[Target, ...]:
    """What comes from the program, and frames."""
    event = NsEvent(bytes(16), bytes(range(16)), 1, 2, bytes(6), bytes(4), 2)
    return (
        Target("event", _event, (event.pack(), event.pack_record() * 2)),
        Target("solicitation", _solicitation, _frames(), (b"\x88\xa8", b"\x3c\0", b"\x2c\0", b"\xff" * 6)),
        Target("advertisement", _advertisement, _frames(), (b"\x88", b"\x81\0\0\1")),
    )


_RULE = b'[[interface.rule]]\nprefix = "2001:db8:2::/48"\nmethod = "static"\n'  # as plain_toml reads it in one


def _configurations() -> tuple[Target, ...]:
    """Our own files, npd6's and ndppd's."""
    reference = (ROOT / "deploy" / "npd6-xdp.toml").read_bytes()
    small = b'[[interface]]\nname = "wan*"\nvlan = "100.7"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = '
    return (
        Target(
            "config",
            _config,
            (
                small + b'"neighbour"\nvia = ["lan0"]\ninclude = ["::10-::1f"]\n',
                small + b'"static"\nexclude = ["::1", "::1:0/112"]\n[limits]\npending = 1\n',
                small + b'"static"\n' + 2 * _RULE + b"router = false\n" + _RULE,
                b'[metrics]\nlisten = "[::1]:1"\n[daemon]\ncontrol = "/run/x"\n' + small + b'"route"\n',
                reference,
            ),
            (
                _RULE,
                b"[[interface]]\n",
                b'"',
                b"'",
                b'"""',
                b"[",
                b"]",
                b"[[",
                b"{",
                b"}",
                b"=",
                b".",
                b"#",
                b"\n",
                b"\\u12",
                b"\\",
                b"1e9",
                b"0x",
                b"9" * 5000,
                b"nan",
                b"\xff",
                b"\0",
                b"\xef\xbb\xbf",
                b"fe80::/10",
                b"-",
                b"/",
                b"%",
                b"a.b.c",
            ),
        ),
        Target(
            "npd6.conf", _convert, _NPD6, (b"=", b"\n", b"::", b"/", b"(", b"a", b"&", b"!", b"<<", b"99", b"+", b"//")
        ),
        Target(
            "ndppd.conf", _convert, _NDPPD, (b"{", b"}", b"proxy", b"rule", b"/*", b"*/", b"//", b"\n", b'"', b"::/0")
        ),
    )


def _web_configurations() -> tuple[Target, ...]:
    """Files of TLS and passwords."""
    words = (
        ": ",
        "\n",
        "  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a",
        "*a",
        "!",
        "|",
        ">",
        '"',
        "'",
        "\\u",
        "?",
        "%",
        "---",
    )
    hashed = f"$2y$10${'O' * 53}"
    samples = (
        "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n",
        "tls_server_config: {cert_file: a, key_file: 'b', cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}\n",
        f'http_server_config:\n  headers:\n    X-Frame-Options: "deny"\nbasic_auth_users:\n  alice: {hashed}\n',
    )
    return (Target("web.yml", _web_file, tuple(map(str.encode, samples)), tuple(map(str.encode, words)), MOST),)


def _of_captures() -> tuple[Target, ...]:
    """Files of frames."""
    pcap_file, pcapng_file = _captures()
    return (
        Target("pcap", _capture, (pcap_file,), (b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x1f\x8b")),
        Target(
            "pcapng", _capture, (pcapng_file,), (b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x0a\x0d\x0d\x0a", b"\6\0\0\0")
        ),
    )


def _of_clients() -> tuple[Target, ...]:
    """What comes by the control socket and by HTTP."""
    return (
        Target(
            "control",
            _question,
            (b'{"verb": "status"}\n', b'{"verb": "status", "brief": true}\n', b'{"verb": "reload"}\n'),
            (b"[", b"{", b'"', b"\\ud800", b"9" * 5000, b"null", b"\n", b"\xff", b"NaN", b"1e999"),
            longest=4096,
        ),
        Target(
            "control reply",
            _reply,
            (b'{"rules": 1, "interfaces": ["wan0"], "warnings": []}\n', b'  {"error": "no"}\n'),
            (b"[", b"{", b'"', b"\\ud800", b"9" * 5000, b"null", b"\n", b"\xff"),
        ),
        Target(
            "http",
            _http,
            (
                b"GET /metrics?name[]=a HTTP/1.1\r\nHost: localhost:9846\r\nAccept: text/plain;q=0.5\r\n\r\n",
                b"HEAD / HTTP/1.0\r\n\r\n",
                b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nAccept-Encoding: gzip\r\n\r\n",
                b"GET /status.json\r\n",
            ),
            (
                b"\r\n",
                b" ",
                b":",
                b"HTTP/9.9",
                b"HTTP/1.",
                b"Expect: 100-continue\r\n",
                b"Host: ",
                b"\xff",
                b"%",
                b"\0",
                b"Transfer-Encoding: chunked\r\n",
                b"Content-Length: -1\r\n",
                b"POST",
                b"//",
                b"x" * 70_000,
            ),
            longest=65536,
        ),
    )


def _captures() -> tuple[bytes, bytes]:
    plain, tagged, *_ = _frames()

    def record(frame: bytes) -> bytes:
        return struct.pack("<IIII", 1_700_000_000, 5, len(frame), len(frame)) + frame

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    old = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + record(plain) + record(tagged)
    options = struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HHq", 14, 8, 5) + bytes(4)
    new = (
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 1, 0, 65535) + options)
        + block(6, struct.pack("<IIIII", 0, 1, 2, len(plain), len(plain)) + plain)
        + block(3, struct.pack("<I", len(tagged)) + tagged)
    )
    return old, new
