# SPDX-License-Identifier: GPL-2.0-or-later
"""The web configuration's keys, in the format of the Prometheus exporters' file: a tree in, a WebConfig out.

That is https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. What of it isn't taken is
refused by its name, as nobody is to believe that it holds. tools/web_file.py makes the tree of YAML.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from npd6_xdp.core.config_words import nearest, quoted, spelled
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError, Mistake
from npd6_xdp.core.web_config import CIPHER_SUITES, NOWHERE, ClientAuth, NamedFile, Place, Tls, TlsVersion, WebConfig

# --- The file's tree ---


class Kind(StrEnum):
    """What YAML takes a scalar for."""

    TEXT = "text"
    BOOLEAN = "true or false"
    NULL = "nothing"
    OTHER = "a number or date"


@dataclass(frozen=True, slots=True)
class At:
    """A node of the file, and where it begins: line and column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar(At):
    """A value, as the file spells it."""

    text: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Items(At):
    """A list."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pairs(At):
    """A table: keys with their values, in the file's order."""

    pairs: tuple[tuple[Node, Node], ...]


Node = Scalar | Items | Pairs


def _inside(place: str, key: str) -> str:
    """How a message names a key of the mapping at a place; "" is the whole file."""
    return f"{place}.{spelled((key,))}" if place else spelled((key,))


def web_config(root: Node | None, source: str) -> WebConfig:
    """What a file's tree says; None is that of an empty one, which asks for nothing. `source` is the file's path.

    Names of files are from where that file is. Raises ConfigError with the first mistakes found, in the file's
    order. No message has a hash or a password in it.
    """
    if root is None or (isinstance(root, Scalar) and root.kind is Kind.NULL):
        return WebConfig(source)
    reader = _Reader(source)
    config = reader.config(root)
    if reader.mistakes:
        raise ConfigError(source, reader.mistakes, reader.count)
    return config


# --- Keys ---

_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("tls_server_config", "http_server_config", "basic_auth_users"),
    "tls_server_config": (
        "cert_file",
        "key_file",
        "client_ca_file",
        "client_auth_type",
        "min_version",
        "max_version",
        "cipher_suites",
        "prefer_server_cipher_suites",
    ),
    "http_server_config": ("http2", "headers"),
    "http_server_config.headers": (
        "Strict-Transport-Security",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "X-XSS-Protection",
    ),
}
_REFUSED: Mapping[str, str] = {
    "rate_limit": "there are bounds for clients, documents and passwords already",
    "tls_server_config.cert": "write it into a file, and name that in cert_file",
    "tls_server_config.key": "write it into a file, and name that in key_file",
    "tls_server_config.client_ca": "write it into a file, and name that in client_ca_file",
    "tls_server_config.client_allowed_sans": "whom client_ca_file signs is let in; have a CA for these clients",
    "tls_server_config.curve_preferences": "OpenSSL's own order holds",
    "http_server_config.headers.Content-Security-Policy": "the page has its own, which lets nothing else in",
}
_HEADER_VALUES: Mapping[str, tuple[str, str]] = {
    # what one may be, since it is what is sent anyway
    "X-Content-Type-Options": ("nosniff", "nosniff"),
    "X-Frame-Options": ("deny", "deny: the page is in nobody's frame"),
}
_EXAMPLES = {"cert_file": "server.crt", "key_file": "server.key"}
_VERSIONS_TOO_OLD = ("TLS10", "TLS11")
_LONGEST_VALUE = 200  # characters of a header
_MOST_COST = 14
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")


class _Reader:
    """Turns the tree into values, and counts its mistakes."""

    def __init__(self, source: str) -> None:
        self.mistakes: list[Mistake] = []
        self.count = 0
        self._source = source

    def wrong(self, at: At, place: str, message: str) -> None:
        """Note a mistake."""
        self.count += 1
        if self.count <= MOST_MISTAKES:
            self.mistakes.append(Mistake(place, message, at.line, at.column))

    def config(self, root: Node) -> WebConfig:
        """The whole file."""
        tls: Tls | None = None
        headers: tuple[tuple[str, str], ...] = ()
        users: tuple[tuple[str, str], ...] = ()
        users_place = NOWHERE
        for key, at, value in self.known("", root):
            if key == "tls_server_config":
                tls = self.tls(key, at, value)
            elif key == "http_server_config":
                headers = self.http(key, value)
            else:
                users = self.users(key, value)
                users_place = self.place(at, key)
        return WebConfig(self._source, tls, headers, users, users_place)

    def place(self, at: At, place: str) -> Place:
        """Where that is, with the file's name."""
        return Place(self._source, at.line, at.column, place)

    # --- tables ---

    def tls(self, place: str, at: At, table: Node) -> Tls | None:
        """`tls_server_config`; None if it can't be used."""
        before = self.count
        found: dict[str, tuple[At, object]] = {}
        readers: Mapping[str, Callable[[str, Node], object]] = {
            **dict.fromkeys(("cert_file", "key_file", "client_ca_file"), self.file),
            "client_auth_type": self.client_auth,
            **dict.fromkeys(("min_version", "max_version"), self.version),
            "cipher_suites": self.cipher_suites,
            "prefer_server_cipher_suites": self.boolean,
        }
        for key, key_at, value in self.known(place, table):
            found[key] = key_at, readers[key](_inside(place, key), value)
        if not isinstance(table, Pairs):
            return None
        for key in ("cert_file", "key_file"):
            if key not in found:
                self.wrong(at, _inside(place, key), f"missing; write one such as {key}: {_EXAMPLES[key]}")
        values = {("client_auth" if key == "client_auth_type" else key): value for key, (_, value) in found.items()}
        if self.count == before:
            self.agree(place, {key: key_at for key, (key_at, _) in found.items()}, at, values)
        return Tls(**values) if self.count == before else None  # type: ignore[arg-type]

    def agree(self, place: str, where: Mapping[str, At], at: At, values: Mapping[str, object]) -> None:
        """What one key says, another may not deny."""
        auth = values.get("client_auth", ClientAuth.NONE)
        if "client_ca_file" in values and auth is ClientAuth.NONE:
            self.wrong(
                where["client_ca_file"],
                _inside(place, "client_ca_file"),
                f"no client is asked for a certificate; write client_auth_type: {ClientAuth.REQUIRED} as well",
            )
        if "client_ca_file" not in values and auth is not ClientAuth.NONE:
            self.wrong(
                where["client_auth_type"],
                _inside(place, "client_auth_type"),
                "needs the CA that signs clients' certificates; write client_ca_file as well",
            )
        least, most = values.get("min_version", TlsVersion.TLS12), values.get("max_version", TlsVersion.TLS13)
        if str(least) > str(most):
            self.wrong(
                where.get("min_version", at), _inside(place, "min_version"), f"{least} is above max_version, {most}"
            )

    def http(self, place: str, table: Node) -> tuple[tuple[str, str], ...]:
        """`http_server_config`: the headers that are sent with each answer besides the usual ones."""
        headers: list[tuple[str, str]] = []
        for key, _, value in self.known(place, table):
            here = _inside(place, key)
            if key == "http2":
                if self.boolean(here, value):
                    self.wrong(value, here, "it speaks HTTP/1.1 only; write false, or leave it out")
                continue
            for name, _, said in self.known(here, value):
                text = self.header(_inside(here, name), name, said)
                if text and name not in _HEADER_VALUES:
                    headers.append((name, text))
        return tuple(headers)

    def users(self, place: str, table: Node) -> tuple[tuple[str, str], ...]:
        """`basic_auth_users`: names with hashes."""
        users: list[tuple[str, str]] = []
        for at, name, value in self.pairs(place, table):
            here = _inside(place, name)
            if not name or ":" in name or not name.isprintable():
                self.wrong(at, here, "a user's name has at least one character, and no colon or control character")
            hashed = value.text if isinstance(value, Scalar) else ""
            found = _HASH.fullmatch(hashed)
            if not found or not 4 <= int(found[1]) <= 31:
                self.wrong(value, here, "must be a bcrypt hash, as htpasswd -nB prints it: $2y$10$ and 53 characters")
            elif int(found[1]) > _MOST_COST:
                self.wrong(
                    value,
                    here,
                    f"a cost of {found[1]} takes many seconds for each password; 10 will do, {_MOST_COST} is most",
                )
            users.append((name, hashed))
        if isinstance(table, Pairs) and not table.pairs:
            self.wrong(table, place, "has no user, so nobody would be asked; leave it out if that is meant")
        return tuple(users)

    # --- walking ---

    def pairs(self, place: str, table: Node) -> Iterator[tuple[At, str, Node]]:
        """A table's keys with their values, each key once."""
        if not isinstance(table, Pairs):
            self.wrong(table, place, f"must be keys with values, one a line; found {_in_words(table)}")
            return
        seen: set[str] = set()
        for key, value in table.pairs:
            if not isinstance(key, Scalar):
                self.wrong(key, place, f"a key must be a word; found {_in_words(key)}")
            elif key.text in seen:
                self.wrong(key, _inside(place, key.text), "is there twice; leave one of the two out")
            else:
                seen.add(key.text)
                yield key, key.text, replace(value, line=key.line, column=key.column)  # errors are at the key

    def known(self, place: str, table: Node) -> Iterator[tuple[str, At, Node]]:
        """Those that the table may have; the others are mistakes."""
        for at, key, value in self.pairs(place, table):
            here = _inside(place, key)
            if key in _KEYS[place]:
                yield key, at, value
            elif here in _REFUSED:
                self.wrong(at, here, f"npd6-xdp doesn't take it: {_REFUSED[here]}; leave it out")
            elif meant := nearest(key, _KEYS[place]):
                self.wrong(at, here, f"unknown key {quoted(key)}; did you mean {quoted(meant)}?")
            else:
                owner = place or "a web configuration"
                self.wrong(at, here, f"unknown key {quoted(key)}; {owner} has {', '.join(_KEYS[place])}")

    # --- values ---

    def text(self, place: str, node: Node, example: str) -> str:
        """Text that is there; "" if it is not, and a mistake."""
        if isinstance(node, Scalar) and node.kind is not Kind.NULL and node.text:
            return node.text
        self.wrong(node, place, f"must be text such as {example}; found {_in_words(node)}")
        return ""

    def boolean(self, place: str, node: Node) -> bool:
        """True or false."""
        if not isinstance(node, Scalar) or node.kind is not Kind.BOOLEAN:
            self.wrong(node, place, f"must be true or false; found {_in_words(node)}")
            return False
        return node.text.lower() in ("true", "yes", "on")

    def file(self, place: str, node: Node) -> NamedFile:
        """A file's name."""
        text = self.text(place, node, "/etc/npd6-xdp/server.pem")
        if not text.isprintable():
            self.wrong(node, place, "a file's name has no control characters")
        return NamedFile(posixpath.join(posixpath.dirname(self._source), text), self.place(node, place))

    def client_auth(self, place: str, node: Node) -> ClientAuth:
        """`client_auth_type`."""
        text = self.text(place, node, ClientAuth.REQUIRED)
        if text in ("RequestClientCert", "RequireAnyClientCert"):
            self.wrong(node, place, f"{text} verifies nothing, and isn't taken; write {ClientAuth.REQUIRED}")
        elif text and text not in [*ClientAuth]:
            self.wrong(node, place, f"must be {' or '.join(ClientAuth)}; found {_in_words(node)}")
        return ClientAuth(text) if text in [*ClientAuth] else ClientAuth.NONE

    def version(self, place: str, node: Node) -> TlsVersion:
        """A version of TLS."""
        text = self.text(place, node, TlsVersion.TLS12)
        if text in _VERSIONS_TOO_OLD:
            self.wrong(node, place, f"{text} is broken (RFC 8996), and isn't taken; write {TlsVersion.TLS12}")
        elif text and text not in [*TlsVersion]:
            self.wrong(node, place, f"must be {' or '.join(TlsVersion)}; found {_in_words(node)}")
        return TlsVersion(text) if text in [*TlsVersion] else TlsVersion.TLS12

    def cipher_suites(self, place: str, node: Node) -> tuple[str, ...]:
        """OpenSSL's names for them."""
        if not isinstance(node, Items):
            self.wrong(node, place, f"must be a list, such as [{next(iter(CIPHER_SUITES))}]; found {_in_words(node)}")
            return ()
        found: list[str] = []
        for index, item in enumerate(node.items):
            here = f"{place}[{index}]"
            name = self.text(here, item, next(iter(CIPHER_SUITES)))
            if name in CIPHER_SUITES:
                found.append(CIPHER_SUITES[name])
            elif re.fullmatch("TLS_(AES|CHACHA20)_[A-Z0-9_]+", name):
                self.wrong(item, here, "those of TLS 1.3 are in use anyway, and can't be chosen; leave it out")
            elif name:
                known = ", ".join(CIPHER_SUITES)
                self.wrong(item, here, f"{quoted(name)} isn't taken; there are, for TLS 1.2, {known}")
        return tuple(dict.fromkeys(found))

    def header(self, place: str, name: str, node: Node) -> str:
        """A header's value; "" is none, as in the exporters."""
        if isinstance(node, Scalar) and not node.text:
            return ""
        text = self.text(place, node, "max-age=31536000")
        wanted, words = _HEADER_VALUES.get(name, (text.lower(), ""))
        if text and text.lower() != wanted:
            self.wrong(node, place, f"must be {words}; found {_in_words(node)}")
        elif not (text.isascii() and text.isprintable() and len(text) <= _LONGEST_VALUE):
            self.wrong(node, place, f"must be one line of at most {_LONGEST_VALUE} plain characters")
        return text


def _in_words(node: Node) -> str:
    match node:
        case Items():
            return "a list"
        case Pairs():
            return "keys with values"
        case Scalar(text="") | Scalar(kind=Kind.NULL):
            return "nothing"
        case Scalar(kind=Kind.TEXT):
            return quoted(node.text)
    return node.text if len(node.text) <= 20 and node.text.isprintable() else node.kind.value
