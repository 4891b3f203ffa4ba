# SPDX-License-Identifier: GPL-2.0-or-later
"""What a web configuration comes to: TLS by Python's ssl (OpenSSL), headers, passwords."""

from __future__ import annotations

import errno
import grp
import math
import os
import pwd
import re
import shlex
import socket
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from npd6_xdp.core.certificates import certificate_warning, not_after
from npd6_xdp.core.errors import remedy
from npd6_xdp.core.web_config import CIPHER_SUITES, ClientAuth, NamedFile, Tls, TlsVersion, WebConfig
from npd6_xdp.system.http.passwords import Lacking, Passwords, Unusable, Verdicts

_MOST = 8 << 20  # bytes of a file: all CAs of a distribution have a quarter of a MiB
_VERSIONS = {TlsVersion.TLS12: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS13: ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    ClientAuth.NONE: ssl.CERT_NONE,
    ClientAuth.IF_GIVEN: ssl.CERT_OPTIONAL,
    ClientAuth.REQUIRED: ssl.CERT_REQUIRED,
}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PLAIN = b"This is served by TLS: ask by https://.\n"


@dataclass(frozen=True, slots=True)
class Secured:
    """How connections are served. `context` is None for plain HTTP, `passwords` for no password. `certificate` is the
    path of the server's own, which `ends` (seconds since the epoch).
    """

    context: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()
    passwords: Passwords | None = None
    certificate: str = ""
    ends: float = math.inf

    def warnings(self, now: float) -> list[str]:
        """What there is to warn of (`now` in seconds since the epoch): a certificate that ends soon, or has ended."""
        line = certificate_warning(self.certificate, self.ends, now)
        return [line] if line else []

    def wrap(self, connection: socket.socket) -> socket.socket:
        """The connection to ask on, where nothing was said yet: this doesn't wait. OSError if nobody is there."""
        if self.context is None:
            return connection
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def secured(web: WebConfig, verdicts: Verdicts) -> Secured:
    """Read the files that a web configuration names. Raises Unusable where one can't be used."""
    passwords = Passwords(web, verdicts) if web.users else None
    if web.tls is None:
        return Secured(None, web.headers, passwords)
    certificate = web.tls.cert_file
    return Secured(_context(web.tls), web.headers, passwords, certificate.path, _end(certificate))


def shake_hands(connection: socket.socket) -> None:
    """Have TLS agreed on, within the socket's timeout. OSError if it isn't; who speaks plain HTTP is told in it."""
    if not isinstance(connection, ssl.SSLSocket):
        return
    try:
        connection.do_handshake()
    except ssl.SSLError as error:
        if error.reason == "HTTP_REQUEST":
            head = f"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(_PLAIN)}\r\n\r\n"
            with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                plain.settimeout(connection.gettimeout())
                plain.sendall(head.encode() + _PLAIN)
                plain.shutdown(socket.SHUT_WR)
        raise


def part(connection: socket.socket) -> None:
    """Say that all was said; whether the other side says so, too, isn't waited for."""
    if isinstance(connection, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            connection.settimeout(0)
            connection.unwrap()


def hang_up(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Shut a connection down that another thread may be using: of TLS, no more than what is below it."""
    with suppress(OSError):
        socket.socket.shutdown(connection, how)


def read_rest(connection: socket.socket, most: int) -> bytes:
    """What comes, of TLS as it is on the wire."""
    return socket.socket.recv(connection, most)


# --- TLS ---


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    context.set_ciphers(":".join(tls.cipher_suites or CIPHER_SUITES.values()))
    context.set_alpn_protocols(["http/1.1"])
    # Nothing is to be kept for the next connection. Of TLS 1.2, OpenSSL keeps 20,480 sessions of 1.4 KiB all the same.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_chain(context, tls)
    if tls.client_ca_file is not None:
        _load_authorities(context, tls.client_ca_file)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA that another has signed is enough
    context.verify_mode = _VERIFY[tls.client_auth]
    return context


def _load_chain(context: ssl.SSLContext, tls: Tls) -> None:
    certificate, key = tls.cert_file, tls.key_file
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)  # else whose fault it is isn't told
    _read(key)
    asked: list[bool] = []

    def password() -> str:
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(certificate.path, key.path, password)
    except ssl.SSLError as error:
        if asked:
            mend = f"openssl pkey -in {shlex.quote(key.path)} -out NEW"
            raise _wrong(key, f"it is encrypted, and nobody is there to say the password: {mend}") from error
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _wrong(key, f"it isn't the key of {certificate.path}; name the two that belong together") from error
        if error.reason in (None, "NO_START_LINE", "UNSUPPORTED", "PEM_LIB", "BAD_END_LINE"):
            raise _wrong(key, "no private key is in it, in PEM") from error
        said = (error.reason or str(error)).lower().replace("_", " ")
        raise _wrong(certificate, f"OpenSSL takes it not: {said}") from error
    except OSError as error:
        raise _wrong(key, f"can't read it: {remedy(error)}") from error


def _end(certificate: NamedFile) -> float:
    """When the first certificate of a file ends, which is the server's own; infinity where that can't be told."""
    found = _PEM.search(_read(certificate).decode("ascii", "replace"))
    with suppress(ValueError):
        return not_after(ssl.PEM_cert_to_DER_cert(found[0])) if found else math.inf
    return math.inf


def _load_authorities(context: ssl.SSLContext, file: NamedFile) -> None:
    try:
        context.load_verify_locations(cadata=_read(file).decode("ascii", "backslashreplace"))
    except (ssl.SSLError, ValueError) as error:
        raise _wrong(file, "no certificate is in it, in PEM") from error


# --- files ---


def _read(file: NamedFile) -> bytes:
    """A file's content; this never waits for a pipe's other end."""
    try:
        number = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as opened:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise _wrong(file, "it is no regular file")
            return opened.read(_MOST)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Lacking(file.place, f"{file.path}: can't read it: {remedy(error)}; {mend_of(file.path)}") from error
        raise _wrong(file, f"can't read it: {remedy(error)}") from error


def _wrong(file: NamedFile, what: str) -> Unusable:
    return Unusable(file.place, f"{file.path}: {what}")


def mend_of(path: str) -> str:
    """What lets this process's user read a file."""
    user, group = _names()
    for name in (path, os.path.realpath(path)):
        for directory in (*reversed(Path(name).parents),):
            if not os.access(directory, os.X_OK, effective_ids=True):
                copied = f"install -m 640 -g {shlex.quote(group)} {shlex.quote(path)} /etc/npd6-xdp/"
                return f"the user {user} may not enter {directory}; name a copy instead: {copied}"
    file = shlex.quote(os.path.realpath(path))
    return f"let the user {user} read it: chgrp {shlex.quote(group)} {file} && chmod 640 {file}"


def _names() -> tuple[str, str]:
    user, group = str(os.geteuid()), str(os.getegid())
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(os.getegid()).gr_name
    return user, group
