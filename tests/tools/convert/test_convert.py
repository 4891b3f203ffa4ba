# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert`: what has no equal is said, what can't be read is refused, both programs' samples become what they say."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from npd6_xdp.core.errors import ConfigError
from npd6_xdp.tools.convert import convert, run
from tests.tools.convert.reading import PAIR, RULE, matches, mistakes, read, rule, wan

FIXTURES = Path(__file__).parent
PEERS = Path(__file__).resolve().parents[3] / ".venv/peers"  # where deploy/setup.sh unpacks the Debian packages
NPD6_SAMPLE = PEERS / "etc/npd6.conf.sample"
NDPPD_SAMPLE = PEERS / "usr/share/doc/ndppd/ndppd.conf-dist"


def headed(text: str) -> dict[str, list[str]]:
    """The comments at the top of what a file becomes, by what stands above them."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in convert(text, "f").toml.partition("\n\n")[0].splitlines():
        if line.endswith(":"):
            title = line
            found[title] = []
        elif line.startswith("# f:"):
            found[title].append(line)
    return found


LOST = "# What follows of that file has no equal:"
REST = "# What follows of it is so here in another way, or needn't be said:"


@pytest.mark.parametrize(
    ("text", "lost", "rest"),
    [
        (PAIR, None, None),
        (f"{PAIR}linkOption = true\nmaxHops = 64", None, ["linkOption", "maxHops"]),
        (f"{PAIR}ralogging = on", ["ralogging"], None),
        (
            f"{PAIR}collectTargets = 5\nprefix=1::\ninterface=b\nlistlogging = on\nnoise\nrouterNA=true\n"
            "routerNA=true\n"
            "exprlist=HOST\nprefix=1::\ninterface=b\nlistlogging =",
            ["listlogging = on", '"noise"', '"listlogging="'],
            ["collectTargets", "routerNA = true: left out: line", "exprlist", "the same as line"],
        ),
        ("route-ttl 5\nproxy a { rule 1:: { static } }", None, ["route-ttl"]),
        (
            "route-ttl 5\nvalid-ttl 30000\naddress-ttl 5\nkeepalive yes\ncolour red\nproxy a { rule 1:: { static } }",
            ["valid-ttl", "colour"],
            ["route-ttl", "address-ttl", "keepalive"],
        ),
    ],
)
def test_what_has_no_equal_stands_under_its_own_head(text: str, lost: list[str] | None, rest: list[str] | None) -> None:
    found = headed(text)
    assert found.pop("") == []
    wanted = {head: lines for head, lines in ((LOST, lost), (REST, rest)) if lines is not None}
    assert list(found) == list(wanted)
    for head, lines in wanted.items():
        assert matches(found[head], lines), found[head]


@pytest.mark.parametrize("text", ["", "\n", "# prefix = 1::", "hello = world\n{", "\0", "prefix 1::"])
def test_a_file_that_is_neither_is_refused(text: str) -> None:
    assert matches(mistakes(text), ["neither an npd6.conf"])


def test_our_own_format_is_refused() -> None:
    text = convert(PAIR, "f").toml
    assert matches(mistakes(text), ["this is npd6-xdp's own format already"])


@pytest.mark.parametrize("kind", ["npd6.conf", "ndppd.conf"])
def test_run_prints_toml_and_says_what_has_no_equal(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / kind
    assert run(path) == 0
    out, err = capfd.readouterr()
    done = convert(path.read_text(), str(path))
    assert out == done.toml
    assert f"from {path}, an {kind}." in out.splitlines()[0]
    assert "npd6-xdp check --config" in out
    assert err.splitlines() == [f"npd6-xdp: {line}" for line in (f"{path}: read as {kind}", *done.remarks)]


def test_the_fixture_of_npd6_becomes() -> None:
    interfaces, said = read((FIXTURES / "npd6.conf").read_text())
    assert interfaces == [
        {
            "name": "wan0",
            "router": False,
            "collect_targets": 100,
            "rule": [{**RULE, "exclude": ["2001:db8:1:2::22", "2001:db8:1:2::100/120"]}],
        },
        {
            "name": "wan1",
            "router": False,
            "collect_targets": 100,
            "rule": [rule("2001:db8:3:4:8000::/65", "static", exclude=["2001:db8:3:4:dead:beef:dead:beef"])],
        },
    ]
    assert [line.split(":")[0] for line in said] == ["12", "19", "21", "21", "22", "24", "25", "26", "28", "29"]


def test_the_fixture_of_ndppd_becomes() -> None:
    interfaces, said = read((FIXTURES / "ndppd.conf").read_text())
    assert interfaces == [
        *wan(
            rule("2001:db8:1::/64", "static"),
            rule("2001:db8:2::/64", "neighbour", "lan0", "lan1", host_routes=True),
            rule("2001:db8:3::1", "route"),
        ),
        {"name": "wan1", "router": False, "rule": [rule("2001:db8:4::/64", "neighbour", "lan0")]},
    ]
    assert [line.split(":")[0] for line in said] == ["2", "3", "8", "9", "11", "12", "13", "23", "25", "31"]


def sample(path: Path) -> str:
    """A file of a distribution's package, which may be compressed."""
    packed = path.with_name(f"{path.name}.gz")
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else path.read_text()


def test_the_sample_of_debian_s_npd6_becomes() -> None:
    interfaces, said = read(sample(NPD6_SAMPLE))
    assert interfaces == [
        {"name": "eth0", "collect_targets": 100, "rule": [rule("2222:1111:2222:3333::/64", "static")]}
    ]
    keys = ["ralogging", "listlogging", "linkOption", "ignoreLocal", "maxHops", "pollErrorLimit"]
    assert [remark.split(" ")[1] for remark in said] == keys


def test_the_sample_of_debian_s_ndppd_becomes() -> None:
    interfaces, said = read(sample(NDPPD_SAMPLE))
    assert interfaces == [{"name": "eth0", "rule": [rule("1111::", "route")]}]
    assert [remark.split(" ")[1] for remark in said] == ["route-ttl", "timeout", "ttl", "auto:"]


@pytest.mark.parametrize(("path", "kind"), [(NPD6_SAMPLE, "npd6.conf"), (NDPPD_SAMPLE, "ndppd.conf")])
def test_the_commands_convert_a_sample_of_debian_s_and_check_what_comes_out(
    tmp_path: Path, path: Path, kind: str
) -> None:
    def npd6(*argv: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "npd6_xdp", *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    old, new = tmp_path / "old.conf", tmp_path / "new.toml"
    old.write_text(sample(path))
    done = npd6("convert", str(old))
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0] == f"npd6-xdp: {old}: read as {kind}"
    assert len(said) > 4, "what has no equal is said"
    new.write_text(done.stdout)
    done = npd6("check", "--config", str(new))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("eth0: hybrid")


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("missing", None, ": can't read it: No such file"),
        ("latin", b"# \xfc", ":1:3: not UTF-8 text: byte 2 can't be decoded;"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes | None, want: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        run(path)
    assert str(caught.value).startswith(f"{path}{want}")
    assert "\n" not in str(caught.value)


def test_a_name_that_no_comment_could_hold_is_escaped() -> None:
    done = convert(f"{PAIR}maxHops = 3\nx\x7f\u2028y", "a\nb\udc80\x00")
    tomllib.loads(done.toml)
    done.toml.encode()
    assert done.remarks[1].startswith('a\\nb\\udc80\\x00:4: "x\\x7f\\u2028y": left out')
