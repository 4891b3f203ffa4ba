# SPDX-License-Identifier: GPL-2.0-or-later
"""The web configuration's values: TLS and passwords for metrics and page; core/web_config_file.py reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from npd6_xdp.core.errors import ConfigError, Mistake


class ClientAuth(StrEnum):
    """`client_auth_type`: whether a client shows a certificate that one of `client_ca_file` has signed."""

    NONE = "NoClientCert"
    IF_GIVEN = "VerifyClientCertIfGiven"
    REQUIRED = "RequireAndVerifyClientCert"


class TlsVersion(StrEnum):
    """`min_version` and `max_version`."""

    TLS12 = "TLS12"
    TLS13 = "TLS13"


CIPHER_SUITES: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Those of TLS 1.2 that have forward secrecy and authenticate what they encrypt, by the RFCs' names; with OpenSSL's."""


class Place(NamedTuple):
    """Where something stands in the web configuration, for errors that show when it is used."""

    source: str
    line: int
    column: int
    name: str

    def __str__(self) -> str:
        return Mistake("", self.name, self.line, self.column).told(self.source)

    def refusal(self, what: str) -> ConfigError:
        """What is wrong there, as an error of the configuration."""
        return ConfigError(self.source, [Mistake(self.name, what, self.line, self.column)])


class NamedFile(NamedTuple):
    """A file that the web configuration names, and where it does."""

    path: str
    place: Place


NOWHERE = Place("", 0, 0, "")
"""Where nothing stands."""


@dataclass(frozen=True, slots=True)
class Tls:
    """`tls_server_config`. `cipher_suites` are OpenSSL's names, of TLS 1.2; () is what OpenSSL has."""

    cert_file: NamedFile
    key_file: NamedFile
    client_ca_file: NamedFile | None = None
    client_auth: ClientAuth = ClientAuth.NONE
    min_version: TlsVersion = TlsVersion.TLS12
    max_version: TlsVersion = TlsVersion.TLS13
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A whole web configuration. `users` are names with bcrypt's hashes, and `users_place` is where they stand; no
    users, no password.
    """

    source: str = ""
    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    users_place: Place = NOWHERE


NO_WEB_CONFIG = WebConfig()
"""Plain HTTP, for everybody."""


def warnings(web: WebConfig, listens: Sequence[tuple[str, int]]) -> list[str]:
    """What is unwise about it."""
    if web.users and web.tls is None and not all(ip_address(host).is_loopback for host, _ in listens):
        return [f"{web.users_place}: without tls_server_config, passwords cross the network for all to read"]
    return []
