# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates and keys, made by openssl(1), and web configurations that name them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bcrypt

PASSWORD = "open sesame"  # noqa: S105
DAYS = 30  # for so long certificates are good: with less than 14, they are warned of
CLIENTS = "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n"


def openssl(where: Path, *words: str) -> None:
    """Run it in a directory."""
    subprocess.run(["openssl", *words], cwd=where, check=True, capture_output=True, timeout=120)


def self_signed(where: Path, name: str, *subject_names: str, days: int = DAYS) -> None:
    """Make NAME.crt and NAME.key, of somebody who has signed for himself: a server, or a CA."""
    names = [] if not subject_names else ["-addext", f"subjectAltName={','.join(subject_names)}"]
    openssl(
        where,
        *KEY,
        "-days",
        str(days),
        "-x509",
        "-subj",
        f"/CN={name}",
        *names,
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.crt",
    )


def signed(where: Path, name: str, authority: str) -> None:
    """Make NAME.crt and NAME.key, which a CA that is there has signed."""
    openssl(where, *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    by = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-days", str(DAYS))
    openssl(where, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.crt")


KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


def web_config(where: Path, more: str = "", cost: int = 4, users: tuple[str, ...] = ("alice",)) -> Path:
    """Make web.yml, of server.crt and server.key and of users who have PASSWORD; `more` is for the TLS part."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()
    path = where / "web.yml"
    lines = [f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{more}"]
    lines += ["basic_auth_users:\n" if users else "", *(f"  {user}: {hashed}\n" for user in users)]
    path.write_text("".join(lines))
    return path
