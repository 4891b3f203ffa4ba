# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor on what surrounds the daemon: its unit under a real systemd, privileges, bcc; and on what that has counted."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Finding, Level
from tests.netns.doctoring import of
from tests.netns.service import UnderSystemd
from tests.netns.wire import Wire, configuration, question, until

Start = Callable[..., RunningDaemon]

CONTROL = '[daemon]\ncontrol = "/run/npd6-xdp/control.sock"\n'
FILE = "/run/lab/npd6-xdp.toml"
COMMAND = (sys.executable, "-m", "npd6_xdp", "doctor", "--json", "--config")


def findings(text: str) -> list[Finding]:
    return [
        Finding(each["check"], Level(each["level"]), each["message"], tuple(each["mend"])) for each in json.loads(text)
    ]


def test_the_unit_is_told_of_failed_masked_not_enabled_or_changed_and_what_is_printed_mends_it(
    topology: Topology,
) -> None:
    good = CONTROL + configuration("2001:db8:1::/64 route")
    with UnderSystemd(topology, good) as service:

        def unit() -> list[Finding]:
            done = service.enter(*service.program("doctor", "--json", "--config", FILE))
            return of(findings(done.stdout), "unit")

        def mended(level: Level, words: str) -> None:
            (found,) = unit()
            assert found.level is level
            assert words in found.message
            for mend in found.mend:
                done = service.enter("sh", "-c", mend)
                assert done.returncode == 0, done.stderr
            assert found.mend
            assert words not in " ".join(each.message for each in unit())

        mended(Level.WARN, "won't after a boot")
        assert unit() == []
        service.enter("sh", "-c", "echo '# changed' >> /run/systemd/system/npd6-xdp.service")
        mended(Level.WARN, "has changed on disk")
        service.configure(good.replace("route", "rote"))
        service.systemctl("restart", "npd6-xdp")
        service.configure(good)
        assert service.comes_to(ActiveState="failed")
        mended(Level.FAIL, "has failed (exit-code, exit status 2)")
        assert unit() == []
        service.systemctl("stop", "npd6-xdp")
        service.systemctl("mask", "npd6-xdp")
        mended(Level.FAIL, "is masked")


LOOPS = "ExecStartPre=/bin/test ! -e /run/lab/broken\nRestartSec=600\n"
"""A unit that doesn't start while there is that file; and doctor finds it between two of its starts."""


def test_a_unit_that_ends_again_and_again_is_told_with_how_to_see_why_until_it_is_mended(topology: Topology) -> None:
    with UnderSystemd(topology, CONTROL + configuration("2001:db8:1::/64 route"), LOOPS) as service:

        def unit() -> list[Finding]:
            done = service.enter(*service.program("doctor", "--json", "--config", FILE))
            return of(findings(done.stdout), "unit", Level.FAIL)

        assert unit() == []
        service.enter("touch", "/run/lab/broken")
        service.systemctl("restart", "npd6-xdp")
        assert service.comes_to(ActiveState="activating", SubState="auto-restart")
        (found,) = unit()
        assert "ends again and again, and is about to be started again (exit-code, " in found.message
        assert "journalctl -u npd6-xdp.service says why" in found.message
        service.enter("rm", "/run/lab/broken")
        service.systemctl("restart", "npd6-xdp")
        assert service.comes_to(ActiveState="active")
        assert unit() == []


NDPPD = """
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/run/lab/ndppd 600
[Install]
WantedBy=multi-user.target
"""


def test_another_proxy_that_systemd_runs_is_stopped_so_that_it_does_not_come_back(topology: Topology) -> None:
    with UnderSystemd(topology, CONTROL + configuration("2001:db8:1::/64 route")) as service:

        def look() -> list[Finding]:
            done = service.enter(*service.program("doctor", "--json", "--config", FILE))
            return of(findings(done.stdout), "others")

        def of_systemd(word: str) -> str:
            return str(service.enter("systemctl", word, "ndppd").stdout).strip()

        assert look() == []
        service.enter("sh", "-ec", f"cp /bin/sleep /run/lab/ndppd; echo '{NDPPD}' > /run/systemd/system/ndppd.service")
        service.enter("systemctl", "daemon-reload")
        service.enter("systemctl", "enable", "--now", "ndppd")
        assert until(lambda: of_systemd("is-active") == "active")
        (found,) = look()
        assert (found.level, found.mend) == (Level.WARN, ("systemctl disable --now ndppd.service",))
        service.enter("sh", "-ec", found.mend[0])
        assert look() == []
        assert (of_systemd("is-active"), of_systemd("is-enabled")) == ("inactive", "disabled")


def test_another_package_by_the_name_of_bcc_is_no_bcc(topology: Topology, tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("cubic = 'body-centred'\n")
    file = tmp_path / "npd6-xdp.toml"
    file.write_text(configuration("2001:db8:1::/64 route"))
    path = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    done = topology.run("edge", *COMMAND, str(file), env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    (found,) = of(findings(done.stdout), "bcc")
    assert found.level is Level.FAIL
    assert found.mend == ("apt-get install python3-bpfcc",)
    (program,) = of(findings(done.stdout), "program")
    assert program.level is Level.NOTE


def test_without_proc_a_line_says_so(topology: Topology, tmp_path: Path) -> None:
    file = tmp_path / "npd6-xdp.toml"
    file.write_text(configuration("2001:db8:1::/64 route"))
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh")
    done = topology.run("edge", *hidden, *COMMAND, str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npd6-xdp: /proc isn't mounted here, and all is read there: mount -t proc proc /proc\n"


@pytest.mark.parametrize(("kibibytes", "check", "level"), [(0, "perf_events", "fail"), (1024, "locked_memory", "warn")])
def test_little_locked_memory_is_told_and_more_of_it_mends_it(
    topology: Topology, tmp_path: Path, kibibytes: int, check: str, level: str
) -> None:
    file = tmp_path / "npd6-xdp.toml"
    file.write_text(configuration("2001:db8:1::/64 route"))

    def look(first: str) -> list[Finding]:
        """By one who is above no limit of memory, in a shell where something is done first."""
        shell = ("setpriv", "--bounding-set=-ipc_lock,-sys_admin", "prlimit", f"--memlock={kibibytes << 10}:8388608")
        done = topology.run("edge", *shell, "sh", "-c", f'{first}; exec "$@"', "sh", *COMMAND, str(file))
        return of(findings(done.stdout), check)

    (found,) = look(":")
    assert found.level == level
    assert f"locked memory: {kibibytes} KiB" in found.message
    (mend,) = found.mend
    assert look(mend) == []


def test_a_daemon_that_stands_and_one_with_another_file_are_told_and_what_is_printed_mends_it(
    topology: Topology,
) -> None:
    text = CONTROL + configuration("2001:db8:1::/64 route")
    with UnderSystemd(topology, text, "WatchdogSec=0\n") as service:

        def look(*argv: str) -> list[Finding]:
            return findings(service.enter(*service.program(*argv, "--json")).stdout)

        here = ("doctor", "--config", FILE)
        service.send(signal.SIGSTOP)
        stopped = look(*here)
        (silent,) = of(stopped, "daemon")
        assert silent.level is Level.WARN
        assert silent.message.startswith("it is there, and doesn't answer: ")
        assert "`journalctl -u npd6-xdp -n 20`" in silent.message
        assert of(stopped, "perf_events") == [], "judged as the service that it is of"
        (mend,) = silent.mend
        assert service.enter("sh", "-c", mend).returncode == 0
        assert service.comes_to(ActiveState="active")
        assert of(look(*here), "daemon") == []
        (topology.directory / "other.toml").write_text(text)
        (other,) = of(look("doctor", "--config", "/run/lab/other.toml"), "file")
        assert other.level is Level.WARN
        assert f"the daemon uses {FILE}, and not /run/lab/other.toml" in other.message
        (mend,) = other.mend
        assert mend.startswith("npd6-xdp ")
        assert of(look(*shlex.split(mend)[1:]), "file") == []


SMALLER = {
    "CapabilityBoundingSet=~CAP_BPF": ("capabilities", Level.FAIL, "isn't given CAP_BPF"),
    "AmbientCapabilities=~CAP_NET_ADMIN": ("capabilities", Level.FAIL, "runs as npd6-xdp, isn't given CAP_NET_ADMIN"),
    "LimitMEMLOCK=1M": ("locked_memory", Level.WARN, "(locked memory of the service: 1024 KiB)"),
    "LimitMEMLOCK=1M:64M": ("locked_memory", Level.WARN, "(locked memory of the service: 1024 KiB)"),
    "User=root\nCapabilityBoundingSet=~CAP_PERFMON": ("capabilities", Level.FAIL, "runs as root, isn't given CAP_PERF"),
}
"""What somebody's drop-in takes from the service, and what is said of it."""


def test_what_a_drop_in_takes_from_the_service_is_told_to_root_too_and_what_is_printed_gives_it_back(
    topology: Topology,
) -> None:
    theirs = "/etc/systemd/system/npd6-xdp.service.d"
    with UnderSystemd(topology, CONTROL + configuration("2001:db8:1::/64 route")) as service:

        def look() -> list[Finding]:
            found = findings(service.enter(*service.program("doctor", "--json", "--config", FILE)).stdout)
            return [each for name in ("capabilities", "perf_events", "locked_memory") for each in of(found, name)]

        assert look() == []
        for line, (check, level, words) in SMALLER.items():
            service.enter("sh", "-ec", f"mkdir -p {theirs}; printf '[Service]\n{line}\n' > {theirs}/override.conf")
            service.systemctl("daemon-reload")
            found = look()
            (its,) = (each for each in found if each.check == check)
            assert its.level is level, line
            assert words in its.message
            for mend in its.mend:
                done = service.enter("sh", "-c", mend)
                assert done.returncode == 0, done.stderr
            assert look() == [], line
            service.enter("rm", "-r", theirs)


def test_what_the_daemon_has_refused_and_what_it_warns_of_is_told(topology: Topology, daemon: Start) -> None:
    running = daemon(
        "[limits]\npending = 60000\n"
        + configuration("2001:db8:1::/64 neighbour via=lan0", datapath='"python"', events_per_source="1")
    )
    with Wire(topology) as wire:
        for number in range(1, 9):
            wire.send(question(f"2001:db8:1::99:{number}"))
    assert until(lambda: running.solicitations().get("rate_limited", 0) > 0)
    found = findings(running.command("doctor", "--json", "--config", str(running.config_file)).stdout)
    (refused,) = of(found, "rate_limited")
    assert refused.message.startswith("wan0: ")
    assert "source" in refused.message
    assert any("limits.pending" in each.message for each in of(found, "warning")), of(found, "warning")
