# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package, in a root with nothing else installed: what it brings, and its life from start to purge."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tarfile
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from npd6_xdp import __version__
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, EDGE_WAN_MAC, HOST_ADDRESS, Topology
from npd6_xdp.tools.alerts import DOCUMENT
from tests.netns.handovers import RULES as EACH_METHOD
from tests.netns.handovers import asking, make_known, set_out
from tests.netns.service import SYSCTLS, left
from tests.netns.test_reload import stream
from tests.netns.wire import Wire, configuration, question, until
from tests.netns.xdp_links import handed_over
from tests.package.sources import bpf_files, copy_tree
from tests.roots import PROJECT, Root, fresh_root

CONFIGURATION = "etc/npd6-xdp/npd6-xdp.toml"
CACHE = "/var/cache/npd6-xdp"
MOST_SILENT = 5.0  # seconds, where nothing is handed over
TRIES = 2  # on a machine that does other things beside it may take longer, but not each time
RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:1::1:0:0/96 static",  # of which stream() asks for
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static",
)


def test_lintian_finds_nothing_in_either_package(deb: Path, source_package: Path) -> None:
    """A later one may not know the tag of an override, and knows a later Policy: that it says so is left aside."""
    later = "--suppress-tags=alien-tag,out-of-date-standards-version"
    options = ("--allow-root", "--pedantic", "--display-info", "--fail-on=pedantic", later)
    for package in (deb, source_package):
        words = ("lintian", *options, package)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_source_package_has_the_autopkgtests_and_what_it_is_built_of(source_package: Path) -> None:
    said = source_package.read_text()
    assert "Format: 3.0 (native)\n" in said
    assert "Testsuite: autopkgtest\n" in said
    with tarfile.open(source_package.with_suffix(".tar.xz")) as archive:
        names = archive.getnames()
        (tree,) = {name.partition("/")[0] for name in names}
        place = f"{tree}/debian/tests/"
        tests = {name.removeprefix(place) for name in names if name.startswith(place)}
        assert all(archive.getmember(f"{place}{test}").mode & 0o111 for test in tests - {"control"})
    assert tests == {"control", "lab", "service", "words"}
    assert {f"{tree}/bpf/{path}" for path in bpf_files()} <= {*names}


def test_the_file_says_what_it_is(deb: Path) -> None:
    assert deb.name == f"npd6-xdp_{__version__}_all.deb"


def test_its_maintainer_is_whom_the_environment_names(later_deb: Path) -> None:
    done = subprocess.run(["dpkg-deb", "-f", later_deb, "Maintainer"], capture_output=True, text=True, check=True)
    assert done.stdout == "npd6 & xdp/ <a@b.invalid>\n"


def test_building_says_what_it_lacks(debian: None) -> None:
    with TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        copy_tree(place / "tree")
        (place / "status").touch()  # dpkg's, of a machine that has nothing installed
        script = (
            'mount --bind "$0" /var/lib/dpkg; '
            'exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0/tree/deploy/debian/build.sh"'
        )
        words = ("unshare", "--mount", "bash", "-c", script, place)
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"package: as root, first: apt-get install [a-z0-9 -]*\bdebhelper-compat dh-python .*\n", done.stderr
    )


def test_it_needs_no_pip_and_nothing_that_only_some_commands_use(installed: Root) -> None:
    listed = installed.run("dpkg-query", "-W", "-f", "${Package}\n").stdout.split()
    assert {"python3-bpfcc", "python3-prometheus-client", "npd6-xdp"} <= {*listed}
    assert not {"python3-pip", "python3-scapy", "python3-pyroute2", "python3-setuptools"} & {*listed}
    assert "Depends" in installed.run("dpkg-query", "-s", "npd6-xdp").stdout


def test_systemd_finds_nothing_wrong_with_the_unit_where_it_is_installed(installed: Root) -> None:
    assert installed.run("systemd-analyze", "verify", "npd6-xdp.service").stdout == ""


def test_its_reference_configuration_can_be_used(installed: Root) -> None:
    assert (installed.path / CONFIGURATION).read_bytes() == (PROJECT / "deploy/npd6-xdp.toml").read_bytes()
    said = installed.run("npd6-xdp", "check", "--config", f"/{CONFIGURATION}").stdout
    assert "2001:db8:1::/64  static" in said


def test_the_program_is_as_a_debian_program_is(installed: Root) -> None:
    assert installed.run("npd6-xdp", "version").stdout == f"npd6-xdp {__version__}\n"
    owned = installed.run("dpkg-query", "-L", "npd6-xdp").stdout.splitlines()
    assert {f"/usr/share/npd6-xdp/npd6_xdp/bpf/{path}" for path in bpf_files()} <= {*owned}
    assert [path for path in owned if "dist-packages" in path or path.endswith(".pyc")] == []
    assert list((installed.path / "usr/share/npd6-xdp/npd6_xdp/core/__pycache__").glob("*.pyc"))
    assert installed.run("getent", "passwd", "npd6-xdp").stdout.strip().endswith("/nologin")
    assert {
        "/usr/lib/sysctl.d/50-npd6-xdp.conf",
        "/usr/share/man/man8/npd6-xdp.8.gz",
        "/usr/share/man/man5/npd6-xdp.toml.5.gz",
        "/usr/share/bash-completion/completions/npd6-xdp",
        "/usr/share/zsh/vendor-completions/_npd6-xdp",
        "/usr/share/doc/npd6-xdp/docs/operation.md",
        "/usr/share/doc/npd6-xdp/examples/prometheus/rules/npd6-xdp.rules.yml",
        "/usr/share/npd6-xdp/npd6_xdp/rules/npd6-xdp.rules.yml",
        DOCUMENT,
        "/usr/share/doc/npd6-xdp/examples/grafana/npd6-xdp.json",
    } <= {*owned}


def test_the_journal_takes_what_is_too_large_for_a_datagram_and_what_has_several_lines(installed: Root) -> None:
    script = """
        import logging
        from npd6_xdp.core.logged import fields
        from npd6_xdp.tools.journal import Journal
        journal = Journal(logging.Formatter("%(message)s"))
        for text in ("short", "two\\nlines", "x" * 1_000_000):
            known = fields(error=text[:5], interfaces=("a", "b"))
            assert journal.send(journal.entry(logging.makeLogRecord({"msg": text, "levelno": 30, **known})))
        """
    with fresh_root(over=installed, boot=True) as root:
        root.run("env", "PYTHONPATH=/usr/share/npd6-xdp", "python3", "-c", textwrap.dedent(script))
        root.run("journalctl", "--sync")
        said = root.run("journalctl", "-a", "-o", "json", "SYSLOG_IDENTIFIER=npd6-xdp").stdout
    entries = [json.loads(line) for line in said.splitlines()]
    assert [each["MESSAGE"] for each in entries] == ["short", "two\nlines", "x" * 1_000_000]
    assert [each["NPD6_ERROR"] for each in entries] == ["short", "two\nl", "xxxxx"]
    assert all(each["NPD6_INTERFACE"] == ["a", "b"] and each["PRIORITY"] == "4" for each in entries)


@pytest.mark.needs_table
def test_it_lives_from_start_to_purge(installed: Root, deb: Path, later_deb: Path, topology: Topology) -> None:
    """`python -m tests.package.upgrades` does the upgrade again and again, under ten times the questions."""
    set_out(topology)
    before = left(topology)
    with fresh_root(over=installed, namespace=topology.name("edge"), boot=True) as root, Wire(topology) as wire:
        # nothing is attached before somebody has said to what
        assert root.systemctl("is-enabled", "npd6-xdp", check=False) == "disabled"
        assert root.systemctl("is-active", "npd6-xdp", check=False) == "inactive"

        configuration_file = root.path / CONFIGURATION
        configuration_file.write_text(configuration(*EACH_METHOD))
        root.systemctl("enable", "--now", "npd6-xdp")
        answers(topology, wire)

        configuration_file.write_text("a mistake")
        assert root.run("systemctl", "reload", "npd6-xdp", check=False).returncode == 1
        grave = root.run("journalctl", "-p", "err", "-o", "cat", "-u", "npd6-xdp").stdout
        assert "npd6-xdp: error: reload: the old configuration stays\n" in grave
        assert ": info: " not in grave
        said = root.run("journalctl", "-a", "-o", "json", "-u", "npd6-xdp", "_TRANSPORT=journal").stdout
        entries = [json.loads(line) for line in said.splitlines()]
        (attached,) = [each for each in entries if ": attached " in each["MESSAGE"]]
        assert (attached["NPD6_INTERFACE"], attached["PRIORITY"]) == ("wan0", "6")
        assert attached["NPD6_IFINDEX"].isdigit()
        (mistake,) = [each for each in entries if "NPD6_LINE" in each]
        assert (mistake["NPD6_FILE"], mistake["NPD6_LINE"], mistake["NPD6_COLUMN"]) == (f"/{CONFIGURATION}", "1", "3")
        assert mistake["NPD6_ERROR"].startswith("not valid TOML: ")
        assert mistake["MESSAGE"] == f"npd6-xdp: error: reload: /{CONFIGURATION}:1:3: {mistake['NPD6_ERROR']}"
        configuration_file.write_text(configuration(*EACH_METHOD))

        make_known(topology, wire)
        with asking(topology, 2_000) as asked, handed_over(topology):
            said = root.install(later_deb, options=("--force-confold",))
        assert (asked.unequal(), asked.lost_pings) == ({}, 0)
        assert "npd6-xdp (99.0~rc1)" in said
        assert configuration_file.read_text() == configuration(*EACH_METHOD)
        assert "a later version's word" in configuration_file.with_suffix(".toml.dpkg-dist").read_text()
        said = root.run("npd6-xdp", "status").stdout
        # behind what is wrong: others may have the neighbour table full, which all namespaces share
        assert re.search(r"(?m)^npd6-xdp 99\.0rc1, ", said), f"it was restarted: {said}"
        answers(topology, wire)

        root.run("apt-get", "-qy", "remove", "npd6-xdp")
        assert left(topology) == before
        assert root.systemctl("is-active", "npd6-xdp", check=False) == "inactive"
        assert configuration_file.exists()
        assert not (root.path / "usr/share/npd6-xdp").exists()

        root.run("apt-get", "-qy", "purge", "npd6-xdp")
        assert "npd6" not in root.run("getent", "passwd").stdout + root.run("getent", "group").stdout
        names = root.run("find", "/", "-path", "/proc", "-prune", "-o", "-name", "*npd6*", "-print").stdout.split()
        assert [name for name in names if not name.startswith(("/sys/fs/cgroup", "/tmp/"))] == []  # noqa: S108
        mentions = root.run("grep", "-rl", "npd6", "/etc", "/var/lib/systemd", "/usr/share", check=False).stdout.split()
        assert [name for name in mentions if not name.endswith("-")] == [], "passwd's own backups apart"

        # again, under a systemd that runs
        root.install(deb)
        assert root.systemctl("is-active", "npd6-xdp", check=False) == "inactive"
        assert configuration_file.read_bytes() == (PROJECT / "deploy/npd6-xdp.toml").read_bytes()


def test_an_upgrade_from_a_package_without_a_store_and_the_way_back_leave_nothing(
    installed: Root, deb: Path, earlier_deb: Path, topology: Topology
) -> None:
    before = left(topology)
    files = {earlier_deb: "/tmp/earlier.deb", deb: "/tmp/this.deb"}  # noqa: S108 (the root's)
    with fresh_root(over=installed, namespace=topology.name("edge"), boot=True) as root, Wire(topology) as wire:
        for package, name in files.items():
            shutil.copy(package, root.path / name[1:])
        root.run("dpkg", "-i", files[earlier_deb])
        (root.path / CONFIGURATION).write_text(configuration(*RULES))
        root.systemctl("enable", "--now", "npd6-xdp")
        answers(topology, wire)
        silent: dict[Path, list[float]] = {deb: [], earlier_deb: []}
        for package in (deb, earlier_deb) * TRIES:
            if max(min(each, default=9.0) for each in silent.values()) <= MOST_SILENT:
                break
            root.run("rm", "-rf", CACHE)
            with stream(topology, 500, unanswered=True) as asked:
                said = root.run("dpkg", "--force-confold", "-i", files[package]).stdout
                answers(topology, wire)
            if package is deb:  # nobody answers while a start compiles that nothing is handed over to
                assert "npd6-xdp: the XDP program is compiled, for the next start to find\n" in said
                owners = root.run("find", CACHE, "-printf", "%u %M\n").stdout.splitlines()
                assert owners == ["npd6-xdp drwx------", "npd6-xdp -rw-------"]
            missed = asked.sent - len(asked.answered)
            silent[package].append(missed / asked.flooding.rate)
            print(f"{package}: {missed} of {asked.sent} unanswered: for {silent[package][-1]:.2f} s")
            kept = root.systemctl("show", "--value", "--property", "NFileDescriptorStore", "npd6-xdp")
            assert (kept == "0") is (package is earlier_deb)
        assert max(map(min, silent.values())) <= MOST_SILENT
        root.systemctl("stop", "npd6-xdp")
        assert left(topology) == before


def test_it_can_be_purged_though_its_user_and_group_are_still_needed(installed: Root) -> None:
    with fresh_root(over=installed) as root:
        root.run("useradd", "--gid=npd6-xdp", "operator")
        said = root.run("apt-get", "-qy", "purge", "npd6-xdp").stdout
        assert "cannot remove the primary group of user 'operator'" in said
        assert "npd6-xdp" not in root.run("getent", "passwd").stdout
        assert "npd6-xdp" not in root.run("dpkg-query", "-W", "-f", "${Package}\n").stdout


def test_what_it_recommends_is_all_that_the_other_commands_need(installed: Root, topology: Topology) -> None:
    with fresh_root(over=installed, namespace=topology.name("upstream")) as root:
        capture = root.path / "root/a.pcap"
        capture.write_bytes(pcap(question(HOST_ADDRESS)))
        replay = ("npd6-xdp", "replay", "/root/a.pcap", "--config", f"/{CONFIGURATION}", "--mac", EDGE_WAN_MAC)
        refused = root.run(*replay, check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == (
            "npd6-xdp: scapy is missing, which this command needs: install the distribution's package (Debian, Ubuntu,"
            " Fedora: python3-scapy)\n"
        )
        root.install("python3-scapy")
        assert "answered_xdp: rule 2001:db8:1::/64 (static)" in root.run(*replay).stdout
        # the kernel answers for the edge's own address
        said = root.run("npd6-xdp", "probe", EDGE_WAN_ADDRESS, "--interface", "eth0").stdout
        assert said.startswith(f"{EDGE_WAN_ADDRESS} is at {EDGE_WAN_MAC}, ")


def pcap(frame: bytes) -> bytes:
    """A capture of one Ethernet frame."""
    header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return header + struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame


def answers(topology: Topology, wire: Wire) -> None:
    """The service does its work, by three methods."""
    ping = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
    assert ping.returncode == 0, ping.stdout
    assert wire.ask(question("2001:db8:2::7")) is not None
    assert wire.ask(question("2001:db8:3::7")) is not None
    assert wire.ask(question("2001:db8:9::7"), 0.1) is None
    assert until(lambda: left(topology)["proxies"] == ["2001:db8:2::7"], 1.0)
    assert [left(topology)[key] for key in SYSCTLS] == ["1", "1", "0"]
