# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS and passwords: who has neither gets nothing, and whoever stalls, tries or floods is in nobody's way."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.judgement import WORKING
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.passwords import Passwords, Verdicts
from npd6_xdp.system.http.secured import Secured, secured
from npd6_xdp.tools.web_file import parse_web, read_web
from tests.certificates import CLIENTS, PASSWORD, openssl, self_signed, signed, web_config
from tests.netns.wire import until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with server, ca, client and stranger."""
    where = tmp_path_factory.mktemp("certificates")
    self_signed(where, "server", "DNS:edge.example.net", "IP:::1")
    self_signed(where, "ca")
    signed(where, "client", "ca")
    self_signed(where, "stranger")
    return where


@pytest.fixture
def files(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


class Server:
    """An endpoint with a web configuration."""

    def __init__(self, path: Path, verdicts: Verdicts | None = None) -> None:
        self.verdicts = verdicts or Verdicts()
        self.path = path
        self.endpoint = Endpoint([("::1", 0)], lambda *_: [], dict, lambda: WORKING)
        self.again()
        self.endpoint.serve()
        ((self.host, self.port),) = self.endpoint.addresses

    def again(self) -> None:
        """Read the files again."""
        self.endpoint.secure(secured(read_web(str(self.path)), self.verdicts))

    def close(self) -> None:
        self.endpoint.close()

    def client(self, name: str = "", most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client that trusts this server, with a certificate maybe."""
        context = ssl.create_default_context(cafile=self.path.parent / "server.crt")
        if name:
            context.load_cert_chain(self.path.parent / f"{name}.crt", self.path.parent / f"{name}.key")
        if most:
            context.maximum_version = most
        return context

    def ask(self, said: str | None = f"alice:{PASSWORD}", context: ssl.SSLContext | None = None) -> int:
        """The status that /healthz has for who says that."""
        connection = http.client.HTTPSConnection(self.host, self.port, context=context or self.client(), timeout=60)
        headers = {} if said is None else {"Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}
        with closing(connection):
            connection.request("GET", "/healthz", headers=headers)
            return connection.getresponse().status


def curl(server: Server, *words: str, scheme: str = "https") -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "-sS", "-i", "--max-time", "30", *words, f"{scheme}://[::1]:{server.port}/healthz"],
        cwd=server.path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# --- TLS ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_says_the_password_over_tls_is_answered_and_nobody_else(files: Path, version: ssl.TLSVersion) -> None:
    with closing(Server(web_config(files, users=("alice", "böb")))) as server:
        context = server.client(most=version)
        said = (
            *(
                f"alice:{PASSWORD}",
                f"böb:{PASSWORD}",
                None,
                "",
                "alice",
                "alice:",
                f"alice:{PASSWORD}x",
                f"eve:{PASSWORD}",
            ),
            *(f":{PASSWORD}", f"alice:{PASSWORD[:-1]}\0", "alice:" + "x" * 100),
        )
        assert [server.ask(each, context) for each in said] == [200] * 2 + [401] * 9
        for header in ("Basic", "Basic ?", "Basic YQ==", f"Bearer {PASSWORD}", "Digest username=alice", "basic\t"):
            _, text = curl(server, "--cacert", "server.crt", "-H", f"Authorization: {header}")
            assert text.startswith("HTTP/1.0 401 ")
            assert 'WWW-Authenticate: Basic realm="npd6-xdp", charset="UTF-8"' in text
            assert text.endswith("Say a user's name and password.\n")


def test_curl_shows_a_client_certificate_or_isnt_let_in(files: Path) -> None:
    with closing(Server(web_config(files, CLIENTS, users=()))) as server:
        trusted = ("--cacert", "server.crt")
        status, text = curl(server, *trusted, "--cert", "client.crt", "--key", "client.key")
        assert (status, text[:15], text[-3:]) == (0, "HTTP/1.0 200 OK", "ok\n")
        for other in ((), ("--cert", "stranger.crt", "--key", "stranger.key")):
            status, text = curl(server, *trusted, *other)
            assert status != 0, text
            assert "HTTP/" not in text
        web_config(files, CLIENTS.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"), users=())
        server.again()
        assert curl(server, *trusted)[0] == 0
        assert curl(server, *trusted, "--cert", "client.crt", "--key", "client.key")[0] == 0
        assert curl(server, *trusted, "--cert", "stranger.crt", "--key", "stranger.key")[0] != 0


def test_versions_and_cipher_suites_are_those_that_the_file_names(files: Path) -> None:
    def agreed(most: ssl.TLSVersion) -> tuple[str | None, str]:
        context = server.client(most=most)
        with (
            socket.create_connection((server.host, server.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="::1") as connection,
        ):
            return connection.version(), (connection.cipher() or ("",))[0]

    suite = "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n"
    with closing(Server(web_config(files, suite, users=()))) as server:
        assert agreed(ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")
        assert agreed(ssl.TLSVersion.TLSv1_3)[0] == "TLSv1.3"
        web_config(files, "  max_version: TLS12\n", users=())
        server.again()
        version, cipher = agreed(ssl.TLSVersion.TLSv1_3)
        assert version == "TLSv1.2"
        assert "GCM" in cipher or "CHACHA20" in cipher, "what is authenticated as it is encrypted"
        web_config(files, "  min_version: TLS13\n", users=())
        server.again()
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            agreed(ssl.TLSVersion.TLSv1_2)
        assert agreed(ssl.TLSVersion.TLSv1_3)[0] == "TLSv1.3"


def test_who_speaks_plain_http_is_told_and_gets_nothing(files: Path) -> None:
    with closing(Server(web_config(files))) as server:
        status, text = curl(server, "-u", f"alice:{PASSWORD}", scheme="http")
        assert (status, text[:24]) == (0, "HTTP/1.0 400 Bad Request")
        assert text.endswith("This is served by TLS: ask by https://.\n")


@pytest.mark.parametrize(
    "said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 5000, b"\xff" * 70]
)
def test_who_stalls_or_talks_nonsense_in_the_handshake_holds_up_nobody(files: Path, said: bytes) -> None:
    before = threading.active_count()
    with closing(Server(web_config(files))) as server:
        stalled = [socket.create_connection((server.host, server.port), timeout=60) for _ in range(100)]
        try:
            for each in stalled:
                with suppress(OSError):  # it was hung up on
                    each.sendall(said)
            began = time.monotonic()
            assert [server.ask() for _ in range(5)] == [200] * 5
            assert time.monotonic() - began < 8, "ten seconds are what each of them has"
            assert threading.active_count() - before <= 48 + 1
        finally:
            for each in stalled:
                each.close()
        assert until(lambda: threading.active_count() == before + 1)


def test_closing_ends_handshakes_and_answers_at_once(files: Path) -> None:
    before = threading.active_count()
    server = Server(web_config(files))
    context = server.client()
    with (
        socket.create_connection((server.host, server.port)),
        socket.create_connection((server.host, server.port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="::1") as half,
    ):
        half.sendall(b"GET")
        assert until(lambda: threading.active_count() == before + 3), "two are listened to"
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 8, "ten seconds are what each of them has"
        assert threading.active_count() == before


def test_what_is_read_again_holds_for_the_next_connection(files: Path) -> None:
    with closing(Server(web_config(files))) as server:
        old = server.client()
        assert server.ask(context=old) == 200
        self_signed(files, "server", "IP:::1")
        assert server.ask(context=old) == 200, "not before somebody asks for it"
        server.again()
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            server.ask(context=old)
        assert server.ask() == 200
        web_config(files, users=("bob",))
        server.again()
        assert [server.ask(f"{name}:{PASSWORD}") for name in ("alice", "bob")] == [401, 200]
        server.path.write_text("")
        server.again()
        assert curl(server, scheme="http")[1].startswith("HTTP/1.0 200 ")


# --- files that can't be used ---


def refused(path: Path) -> str:
    with pytest.raises(MachineError) as caught:
        secured(read_web(str(path)), Verdicts())
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}:")


def test_a_file_that_cant_be_used_is_named_with_its_place_and_why(files: Path) -> None:
    path = web_config(files, CLIENTS)
    certificate, key, authority = (files / name for name in ("server.crt", "server.key", "ca.crt"))
    at = {
        certificate: f"2:3: tls_server_config.cert_file: {certificate}: ",
        key: f"3:3: tls_server_config.key_file: {key}: ",
        authority: f"4:3: tls_server_config.client_ca_file: {files}/ca.crt: ",
    }
    good = {each: each.read_bytes() for each in at}
    openssl(files, "pkey", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    wrong = (
        (certificate, None, "can't read it: No such file or directory"),
        (key, None, "can't read it: No such file or directory"),
        (authority, None, "can't read it: No such file or directory"),
        (certificate, b"", "no certificate is in it, in PEM"),
        (certificate, good[key], "no certificate is in it, in PEM"),
        (certificate, good[certificate][:200], "no certificate is in it, in PEM"),
        (authority, b"\xff\0", "no certificate is in it, in PEM"),
        (key, b"", "no private key is in it, in PEM"),
        (key, good[certificate], "no private key is in it, in PEM"),
        (key, good[key][:100], "no private key is in it, in PEM"),
        (key, (files / "ca.key").read_bytes(), f"it isn't the key of {certificate}; name the two that belong together"),
        (
            key,
            (files / "locked.key").read_bytes(),
            f"it is encrypted, and nobody is there to say the password: openssl pkey -in {key} -out NEW",
        ),
    )
    for file, content, why in wrong:
        file.unlink() if content is None else file.write_bytes(content)
        assert refused(path) == at[file] + why, content
        file.write_bytes(good[file])
    secured(read_web(str(path)), Verdicts())
    for file in at:
        file.unlink()
        os.mkfifo(file)
        assert refused(path) == at[file] + "it is no regular file", "and it waits for no writer"
        file.unlink()
        file.write_bytes(good[file])


def as_nobody(path: Path) -> str:
    """What the user nobody is told who reads such files."""
    program = (
        "import os, sys; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        f"try: secured(read_web({str(path)!r}), Verdicts())\n"
        "except (ConfigError, Lacking) as error: print(error)\n"
    )
    head = (
        "from npd6_xdp.tools.web_file import read_web\n"
        "from npd6_xdp.system.http.secured import secured\n"
        "from npd6_xdp.system.http.passwords import Lacking, Verdicts\n"
        "from npd6_xdp.core.errors import ConfigError\n"
        "import yaml\n"
    )
    done = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix(f"{path}:")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_key_that_the_user_cant_read_is_refused_with_the_mend_that_mends_it(files: Path) -> None:
    home = Path("/run") / f"npd6-xdp-test-{os.getpid()}"  # where everybody may look; pytest's own directory is private
    shutil.copytree(files, home)
    try:
        path = web_config(home, users=())
        for file in home.iterdir():
            file.chmod(0o644)
        home.chmod(0o755)
        assert as_nobody(path) == ""
        key = home / "server.key"
        key.chmod(0o600)
        said = as_nobody(path)
        where = f"3:3: tls_server_config.key_file: {key}: can't read it: Permission denied; "
        assert said == f"{where}let the user nobody read it: chgrp nogroup {key} && chmod 640 {key}"
        subprocess.run(said.rpartition(" read it: ")[2], shell=True, check=True)  # noqa: S602  what an operator pastes
        assert as_nobody(path) == ""
        path.chmod(0o600)
        said = as_nobody(path)
        mend = f"chgrp nogroup {path} && chmod 640 {path}"
        assert said == f" can't read it: Permission denied; let the user nobody read it: {mend}"
        path.chmod(0o644)
        (home / "inner").mkdir(mode=0o700)
        key.rename(home / "inner" / "server.key")
        key.symlink_to(home / "inner" / "server.key")
        copied = f"install -m 640 -g nogroup {key} /etc/npd6-xdp/"
        assert as_nobody(path) == f"{where}the user nobody may not enter {home}/inner; name a copy instead: {copied}"
    finally:
        shutil.rmtree(home)


def test_without_bcrypt_it_is_named_with_what_to_install(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = web_config(files)
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    said = refused(path)
    assert said.startswith(
        "4:1: basic_auth_users: Python's bcrypt is missing, which checks passwords: install python3-bc"
    )
    web_config(files, users=())
    secured(read_web(str(path)), Verdicts())


# --- passwords ---


class Slow:
    """A bcrypt of known slowness, that counts."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.asked.append(password)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.go.wait(60)
        time.sleep(0.01)
        self.at_once -= 1
        return password == PASSWORD.encode()


def header(password: str, name: str = "alice") -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


HASH = "$2b$10$" + "O" * 53
USERS = parse_web(f"basic_auth_users: {{alice: {HASH}, bob: {HASH[:-1]}C}}", "/web.yml")


def test_a_verdict_is_worked_out_once_right_or_wrong_and_outlives_a_reload() -> None:
    slow = Slow()
    verdicts = Verdicts(slow)
    for _ in range(3):
        passwords = Passwords(USERS, verdicts)
        for _ in range(3):
            assert passwords.allow(header(PASSWORD), "::1", lambda: True)
            assert not passwords.allow(header("wrong"), "::1", lambda: True)
            assert not passwords.allow(header(PASSWORD, "eve"), "::1", lambda: True)
    assert slow.asked == [PASSWORD.encode(), b"wrong", PASSWORD.encode()], "of eve, too: it takes as long as alice's"
    assert Passwords(USERS, verdicts).allow(header(PASSWORD, "bob"), "::1", lambda: True)
    assert len(slow.asked) == 4, "another hash, another verdict"


def test_any_number_of_wrong_passwords_push_no_right_one_out_and_take_no_more_memory() -> None:
    slow = Slow()
    verdicts = Verdicts(lambda password, _: password == PASSWORD.encode())
    passwords = Passwords(USERS, verdicts)
    assert passwords.allow(header(PASSWORD), "::1", lambda: True)
    for number in range(6000):
        assert not passwords.allow(header(str(number)), "::1", lambda: True)
    verdicts._check = slow
    assert passwords.allow(header(PASSWORD), "::1", lambda: True)
    assert slow.asked == []
    assert len(verdicts._wrong) == 4096


def test_one_is_worked_out_at_a_time_and_addresses_take_turns() -> None:
    slow = Slow()
    slow.go.clear()
    passwords = Passwords(USERS, Verdicts(slow))
    ended: list[str] = []

    def ask(said: str, host: str) -> None:
        passwords.allow(header(said), host, lambda: said != "gone")
        ended.append(said)

    threads = []
    for said, host in (
        *((f"guess {number}", f"2001:db8::{number:x}") for number in range(20)),
        ("gone", "2001:db8::1"),
        (PASSWORD, "192.0.2.1"),
    ):
        threads.append(threading.Thread(target=ask, args=(said, host)))
        threads[-1].start()
        assert until(lambda: sum(map(len, passwords._verdicts._waiting.values())) == len(threads) - 1)
    slow.go.set()
    for thread in threads:
        thread.join()
    assert slow.most_at_once == 1
    assert PASSWORD in ended[:3], "behind one that had begun, and one whose turn it was"
    assert len(slow.asked) == 21, "nobody works out what nobody waits for"


def test_bcrypt_itself_takes_these_hashes_and_works_without_pythons_lock(files: Path) -> None:
    path = web_config(files, cost=8, users=("alice",))
    path.write_text(path.read_text().replace("$2b$", "$2y$"))
    passwords = secured(read_web(str(path)), Verdicts()).passwords
    assert passwords is not None
    assert passwords.allow(header(PASSWORD), "::1", lambda: True)
    assert not passwords.allow(header(PASSWORD + "\0"), "::1", lambda: True)
    assert not passwords.allow(header("x" * 200), "::1", lambda: True)
    thread = threading.Thread(target=lambda: [passwords.allow(header(str(n)), "::1", lambda: True) for n in range(20)])
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 50, "with the lock, it would be a turn for each password, or two"


def test_plain_is_what_there_is_without_a_file() -> None:
    plain: Iterator[object] = iter((Secured().context, Secured().passwords, Secured().headers))
    assert list(plain) == [None, None, ()]
