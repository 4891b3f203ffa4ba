# SPDX-License-Identifier: GPL-2.0-or-later
"""The web configuration's file: whatever is in it, a value comes of it, or lines that say what is wrong, and where."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError, MachineError
from npd6_xdp.core.web_config import CIPHER_SUITES, ClientAuth, NamedFile, Place, Tls, TlsVersion, WebConfig
from npd6_xdp.tools.web_file import MOST, look, parse_web, read_web

SOURCE = "/etc/npd6-xdp/web.yml"
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n"
WHOLE = f"""\
# as a file of the exporters has it
tls_server_config:
  cert_file: server.crt
  key_file: /etc/ssl/private/server.key
  client_ca_file: ../clients.pem
  client_auth_type: RequireAndVerifyClientCert
  min_version: TLS12
  max_version: "TLS12"
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
  prefer_server_cipher_suites: no
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=3600
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ""
basic_auth_users:
  alice: {HASH}
  "123": '{HASH.replace("$2y$10", "$2b$04")}'
  7: {HASH}
"""


def wrong(text: str) -> list[str]:
    """The lines that refuse a file."""
    with pytest.raises(ConfigError) as caught:
        parse_web(text, SOURCE)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.mistakes)
    assert all(line.startswith(f"{SOURCE}:") for line in lines)
    return [line.removeprefix(f"{SOURCE}:") for line in lines]


def test_each_key_means_what_it_says() -> None:
    at = {
        key: Place(SOURCE, line, 3, f"tls_server_config.{key}")
        for line, key in ((3, "cert_file"), (4, "key_file"), (5, "client_ca_file"))
    }
    assert parse_web(WHOLE, SOURCE) == WebConfig(
        SOURCE,
        Tls(
            cert_file=NamedFile("/etc/npd6-xdp/server.crt", at["cert_file"]),
            key_file=NamedFile("/etc/ssl/private/server.key", at["key_file"]),
            client_ca_file=NamedFile("/etc/npd6-xdp/../clients.pem", at["client_ca_file"]),
            client_auth=ClientAuth.REQUIRED,
            min_version=TlsVersion.TLS12,
            max_version=TlsVersion.TLS12,
            cipher_suites=("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            prefer_server_cipher_suites=False,
        ),
        headers=(("Strict-Transport-Security", "max-age=3600"),),
        users=(("alice", HASH), ("123", HASH.replace("$2y$10", "$2b$04")), ("7", HASH)),
        users_place=Place(SOURCE, 20, 1, "basic_auth_users"),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_asks_for_nothing(text: str) -> None:
    assert parse_web(text, SOURCE) == WebConfig(SOURCE)


def test_what_isnt_said_holds_its_default() -> None:
    tls = parse_web(TLS, SOURCE).tls
    assert tls is not None
    assert (tls.client_ca_file, tls.client_auth, tls.cipher_suites) == (None, ClientAuth.NONE, ())
    assert (tls.min_version, tls.max_version, tls.prefer_server_cipher_suites) == ("TLS12", "TLS13", True)


MISTAKES = (
    ("a: 1", '1:1: a: unknown key "a"; a web configuration has tls_server_config, http_server_config, basic_auth'),
    ("- a", "1:1: must be keys with values, one a line; found a list"),
    ("just words", '1:1: must be keys with values, one a line; found "just words"'),
    ("tls_server_config:\n", "1:1: tls_server_config: must be keys with values, one a line; found nothing"),
    (
        "tls_server_config:\n  key_file: a",
        "1:1: tls_server_config.cert_file: missing; write one such as cert_file: ser",
    ),
    (
        "tls_server_config:\n  cert_file: a",
        "1:1: tls_server_config.key_file: missing; write one such as key_file: serv",
    ),
    (
        TLS.replace("a.key", "[a]"),
        "3:3: tls_server_config.key_file: must be text such as /etc/npd6-xdp/server.pem; fou",
    ),
    (
        TLS.replace("a.key", ""),
        "3:3: tls_server_config.key_file: must be text such as /etc/npd6-xdp/server.pem; found n",
    ),
    (TLS.replace("a.key", r'"a\nb"'), "3:3: tls_server_config.key_file: a file's name has no control characters"),
    (TLS + "  key_flie: a", '4:3: tls_server_config.key_flie: unknown key "key_flie"; did you mean "key_file"?'),
    (TLS + "  key_file: a", "4:3: tls_server_config.key_file: is there twice; leave one of the two out"),
    (TLS + "  [a]: b", "4:3: tls_server_config: a key must be a word; found a list"),
    (
        TLS + "  key: |\n    -----BEGIN",
        "4:3: tls_server_config.key: npd6-xdp doesn't take it: write it into a file, and",
    ),
    (
        TLS + "  cert: a",
        "4:3: tls_server_config.cert: npd6-xdp doesn't take it: write it into a file, and name that in",
    ),
    (
        TLS + "  client_ca: a",
        "4:3: tls_server_config.client_ca: npd6-xdp doesn't take it: write it into a file, and nam",
    ),
    (TLS + "  client_allowed_sans: [a]", "4:3: tls_server_config.client_allowed_sans: npd6-xdp doesn't take it: whom"),
    (TLS + "  curve_preferences: []", "4:3: tls_server_config.curve_preferences: npd6-xdp doesn't take it: OpenSSL's"),
    (
        TLS + "  client_ca_file: b",
        "4:3: tls_server_config.client_ca_file: no client is asked for a certificate; write c",
    ),
    (
        TLS + "  client_auth_type: RequireAndVerifyClientCert",
        "4:3: tls_server_config.client_auth_type: needs the CA that",
    ),
    (
        TLS + "  client_auth_type: RequireAnyClientCert",
        "4:3: tls_server_config.client_auth_type: RequireAnyClientCert ve",
    ),
    (
        TLS + "  client_auth_type: RequestClientCert",
        "4:3: tls_server_config.client_auth_type: RequestClientCert verifie",
    ),
    (
        TLS + "  client_auth_type: yes",
        "4:3: tls_server_config.client_auth_type: must be NoClientCert or VerifyClientCert",
    ),
    (
        TLS + "  min_version: TLS11",
        "4:3: tls_server_config.min_version: TLS11 is broken (RFC 8996), and isn't taken; writ",
    ),
    (TLS + "  max_version: 1.2", "4:3: tls_server_config.max_version: must be TLS12 or TLS13; found 1.2"),
    (
        TLS + "  min_version: TLS13\n  max_version: TLS12",
        "4:3: tls_server_config.min_version: TLS13 is above max_version",
    ),
    (
        TLS + "  cipher_suites: a",
        "4:3: tls_server_config.cipher_suites: must be a list, such as [TLS_ECDHE_ECDSA_WITH_AES",
    ),
    (
        TLS + "  cipher_suites:\n  - a",
        '5:5: tls_server_config.cipher_suites[0]: "a" isn\'t taken; there are, for TLS 1.2,',
    ),
    (
        TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]",
        "4:19: tls_server_config.cipher_suites[0]: those of TLS 1.3 are",
    ),
    (
        TLS + "  prefer_server_cipher_suites: 1",
        "4:3: tls_server_config.prefer_server_cipher_suites: must be true or fal",
    ),
    (
        "rate_limit: {burst: 1}",
        "1:1: rate_limit: npd6-xdp doesn't take it: there are bounds for clients, documents and",
    ),
    ("http_server_config: {http2: true}", "1:22: http_server_config.http2: it speaks HTTP/1.1 only; write false, or"),
    (
        "http_server_config:\n  headers: {Server: a}",
        '2:13: http_server_config.headers.Server: unknown key "Server"; http',
    ),
    (
        "http_server_config:\n  headers: {X-Frame-Options: sameorigin}",
        "2:13: http_server_config.headers.X-Frame-Options",
    ),
    (
        "http_server_config:\n  headers: {X-XSS-Protection: 'ä'}",
        "2:13: http_server_config.headers.X-XSS-Protection: mus",
    ),
    (
        'http_server_config:\n  headers: {X-XSS-Protection: "a\\r\\nb"}',
        "2:13: http_server_config.headers.X-XSS-Protectio",
    ),
    (
        "http_server_config:\n  headers: {Content-Security-Policy: a}",
        "2:13: http_server_config.headers.Content-Security-Policy: npd6-xdp doesn't take it: the page has its own",
    ),
    (
        "basic_auth_users: {}",
        "1:1: basic_auth_users: has no user, so nobody would be asked; leave it out if that is mean",
    ),
    ("basic_auth_users:", "1:1: basic_auth_users: must be keys with values, one a line; found nothing"),
    ("basic_auth_users: {alice: hunter2}", "1:20: basic_auth_users.alice: must be a bcrypt hash, as htpasswd -nB prin"),
    (
        "basic_auth_users: {alice: [hunter2]}",
        "1:20: basic_auth_users.alice: must be a bcrypt hash, as htpasswd -nB pri",
    ),
    (f"basic_auth_users: {{alice: {HASH[:-1]}}}", "1:20: basic_auth_users.alice: must be a bcrypt hash, as htpasswd"),
    (f"basic_auth_users: {{alice: {HASH[:-1]}H}}", "1:20: basic_auth_users.alice: must be a bcrypt hash, as htpasswd"),
    (
        f"basic_auth_users: {{alice: {HASH.replace('$10$', '$18$')}}}",
        "1:20: basic_auth_users.alice: a cost of 18 takes",
    ),
    (f"basic_auth_users: {{'a:b': {HASH}}}", '1:20: basic_auth_users."a:b": a user\'s name has at least one character'),
    ("a: &a [*a]", "1:4: there is too much within each other; write it plainly"),
    ("a: !!python/object/apply:os.system [id]", "1:4: a tag isn't taken, 'tag:yaml.org,2002:python/object/apply:os.s"),
    ("a: b: c", "1:5: not valid YAML: mapping values are not allowed here"),
    (
        "a:\n\tb: c",
        "2:1: not valid YAML: while scanning for the next token found character '\\t' that cannot start any",
    ),
    ("a: b\n---\nc: d", "2:1: not valid YAML: expected a single document in the stream but found another document"),
    ("a: \x07", "1:4: not valid YAML: a character that YAML has no place for"),
    ('a: "\\UFFFFFFFF"', " not valid YAML: a number or an escape in it is out of range"),
    ("[" * 5000, " not valid YAML: it nests too deeply"),
)


@pytest.mark.parametrize(("text", "want"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place_and_what_to_write_instead(text: str, want: str) -> None:
    (line,) = wrong(text)
    assert line.startswith(want)


def test_every_mistake_is_said_and_no_password_in_any() -> None:
    users = "".join(f"  user{number}: secret{number}\n" for number in range(30))
    lines = wrong(f"a: 1\nbasic_auth_users:\n{users}")
    assert len(lines) == MOST_MISTAKES + 1
    assert lines[-1] == " and 11 more mistakes; mend these first"
    assert "secret" not in "".join(lines)


def test_aliases_that_repeat_each_other_a_billion_times_take_no_time() -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{chr(ord(name) + 1)}: &{chr(ord(name) + 1)} [{', '.join([f'*{name}'] * 9)}]\n" for name in "abcdefg"
    )
    began = time.monotonic()
    (line,) = wrong(laughs)
    assert "there is too much within each other" in line
    assert time.monotonic() - began < 10


SPELLED = st.sampled_from(
    [
        *("tls_server_config", "cert_file", "key_file", "client_ca_file", "client_auth_type", "min_version", "TLS12"),
        *(
            "cipher_suites",
            next(iter(CIPHER_SUITES)),
            "http_server_config",
            "http2",
            "headers",
            "true",
            "X-Frame-Options",
        ),
        *("basic_auth_users", HASH, "deny", "RequireAndVerifyClientCert", "rate_limit"),
        *(
            ": ",
            ":\n  ",
            "\n",
            "\n  ",
            "\n    ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a ",
            "*a",
            "!!str ",
            "!x ",
            "|\n",
            ">-\n",
        ),
        *(
            '"',
            "'",
            "\\",
            "\\u0000",
            "%YAML 1.1\n",
            "---\n",
            "...\n",
            "? ",
            "#",
            "\t",
            "<<",
            "~",
            "0x1",
            "\ufeff",
            "\x85",
        ),
    ]
)


def of(read: Callable[[], WebConfig]) -> WebConfig | ConfigError:
    """What comes of a file."""
    try:
        return read()
    except ConfigError as error:
        return error


@settings(deadline=None, max_examples=400)
@given(st.lists(SPELLED | st.text(max_size=4), max_size=40).map("".join))
@example("%YAML 1." + "9" * 5000 + "\n--- a")
@example("? ? ? a")
@example("a: *a")
@example("=: =")
@example("basic_auth_users: {<<: {a: b}}")
def test_any_text_is_a_value_or_an_error_that_says_where(text: str) -> None:
    found = of(lambda: parse_web(text, SOURCE))
    if isinstance(found, WebConfig):
        assert found.tls is None or (found.tls.cert_file and found.tls.key_file)
        return
    lines = str(found).splitlines()
    assert len(lines) == len(found.mistakes) >= 1
    for line in lines:
        assert line.startswith(f"{SOURCE}:")
        assert line.isprintable()
        assert len(line) < 600


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(data)
    found = of(lambda: read_web(str(path)))
    assert isinstance(found, WebConfig) or all(line.startswith(f"{path}:") for line in str(found).splitlines())


def test_what_is_no_file_or_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read it: it is a directory"):
        read_web(str(tmp_path))
    with pytest.raises(ConfigError, match="can't read it: No such file or directory"):
        read_web(str(tmp_path / "web.yml"))
    (tmp_path / "web.yml").write_text("#" * (MOST + 1))
    with pytest.raises(ConfigError, match="it is too long"):
        read_web(str(tmp_path / "web.yml"))


def test_without_yaml_it_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MachineError, match=r"^/etc/npd6-xdp/web.yml: Python's yaml is missing.* install python3-yaml"):
        parse_web("", SOURCE)


def test_passwords_without_tls_are_warned_of_where_others_may_listen(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{alice: {HASH}}}")
    said = f"{path}:1:1: basic_auth_users: without tls_server_config, passwords cross the network for all to read"
    for listen, want in (("::1", []), ("127.0.0.2", []), ("192.0.2.1", [said]), ("::", [said])):
        assert look(Config((), metrics_listen=((listen, 80),), metrics_web_config=str(path))) == want
    path.write_text(TLS)
    with pytest.raises(
        ConfigError, match=rf"^{path}:2:3: tls_server_config.cert_file: .*/a.crt: can't read it: No such"
    ):
        look(Config((), metrics_web_config=str(path)))
