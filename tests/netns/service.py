# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as its unit runs it: by a user with these capabilities and no others, or by systemd itself.

Both see the program through mounts of their own, so that it may lie where that user, or the unit, can't look.
"""

from __future__ import annotations

import configparser
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import npd6_xdp
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.others import tc_programs
from npd6_xdp.tools.control import ask
from tests.netns.wire import until

ROOT = Path(npd6_xdp.__file__).resolve().parents[1]
SYSTEMD = ROOT / "deploy/systemd"
UNIT = SYSTEMD / "npd6-xdp.service"
MANAGER = Path("/usr/lib/systemd/systemd")
CONTROL = "/run/npd6-xdp/control.sock"
USER, OTHER = 4711, 4712
SYSCTLS = ("conf/wan0/proxy_ndp", "conf/all/proxy_ndp", "neigh/wan0/proxy_delay")
_PYTHON = f"venv/bin/{Path(sys.executable).name}"

# A user's view: the program at $dir/tree, and a directory of its own as /run/npd6-xdp, as RuntimeDirectory= makes it.
_AS_USER = """
set -e
dir=$1 memlock=$2 capabilities=$3 user=$4
shift 4
mkdir -p "$dir/tree" "$dir/venv" /run/npd6-xdp
if [ -d "$KEPT" ]; then
    install -d -o "$user" -g "$user" -m 700 "$dir/cache"
    find "$KEPT" -name '*.kept' -exec install -o "$user" -g "$user" -m 600 -t "$dir/cache" {} +
fi
mount --bind "$TREE" "$dir/tree"
mount --bind "$VENV" "$dir/venv"
mount --bind "$dir/runtime" /run/npd6-xdp
exec prlimit --memlock="$memlock" setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs \
    --inh-caps="-all,$capabilities" --ambient-caps="-all,$capabilities" --bounding-set="-all,$capabilities" \
    env PYTHONPATH="$dir/tree" CACHE_DIRECTORY="$dir/cache" PYTHONDONTWRITEBYTECODE=1 "$dir/$PYTHON" -m npd6_xdp "$@"
"""

# A cgroup of its own, so that nothing of the manager's outlives it; then all namespaces but the network's.
_OUTSIDE = """
set -e
mount --make-rprivate /
mkdir "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$2"
echo $$ > "$1/cgroup/$2/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup bash -c "$3" bash "$1"
"""
_INSIDE = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$1/run"
mount -t tmpfs -o mode=755 tmpfs "$1/run"
mkdir -p "$1/run/lab" "$1/run/tree" "$1/run/venv" "$1/run/etc" "$1/run/systemd/system"
mount --bind "$1" "$1/run/lab"
mount --bind "$TREE" "$1/run/tree"
mount --bind "$VENV" "$1/run/venv"
cp -a /etc/. "$1/run/etc/"
cp "$1/system/"* "$1/run/systemd/system/"
mount --no-mtab --move "$1/run" /run
mount --bind /run/etc /etc
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
mount -t tmpfs tmpfs /var/cache
mount -t cgroup2 cgroup2 /sys/fs/cgroup
systemd-sysusers /run/tree/deploy/systemd/npd6-xdp.sysusers.conf
if [ -d "$KEPT" ]; then
    install -d -o npd6-xdp -g npd6-xdp -m 700 /var/cache/npd6-xdp
    find "$KEPT" -name '*.kept' -exec install -o npd6-xdp -g npd6-xdp -m 600 -t /var/cache/npd6-xdp {} +
fi
exec env --ignore-environment PATH="$PATH" container=npd6-xdp "$MANAGER" --unit=nothing.target --show-status=no
"""
_NOTHING = "[Unit]\nDefaultDependencies=no\n"
# Ordered after nothing of this machine's: the manager would start that, too.
_DROP_IN = f"""
[Unit]
DefaultDependencies=no
[Service]
Environment=PYTHONPATH=/run/tree PYTHONDONTWRITEBYTECODE=1
ExecStart=
ExecStart=/run/{_PYTHON} -m npd6_xdp run --config /run/lab/npd6-xdp.toml
ExecReload=
ExecReload=/run/{_PYTHON} -m npd6_xdp reload
StandardOutput=append:/run/lab/service.log
StandardError=inherit
"""


def unit() -> configparser.RawConfigParser:
    """The unit, of whose keys the last of each name is kept."""
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(UNIT)
    return found


def capabilities() -> list[str]:
    """What the unit gives, as setpriv spells it: "net_admin"."""
    return [name.removeprefix("CAP_").lower() for name in unit()["Service"]["CapabilityBoundingSet"].split()]


def mask(names: Sequence[str]) -> str:
    """The same as /proc/PID/status has it."""
    numbers = {"net_admin": 12, "net_raw": 13, "perfmon": 38, "bpf": 39}
    return f"{sum(1 << numbers[name] for name in names):016x}"


def as_user() -> Sequence[str]:
    """The words of setpriv(1) that have a command run by the service's user, with the unit's capabilities."""
    given = ",".join(("-all", *(f"+{name}" for name in capabilities())))
    caps = (f"--{which}={given}" for which in ("inh-caps", "ambient-caps", "bounding-set"))
    return ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", *caps)


def left(topology: Topology) -> dict[str, Any]:
    """What a daemon may leave behind on the edge."""
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    with topology.inside("edge"):
        at_tc = len(tc_programs(socket.if_nametoindex("wan0")))
        sysctls = {key: (Path("/proc/sys/net/ipv6") / key).read_text().strip() for key in SYSCTLS}
    return {
        "xdp": "xdp" in link,
        "tc": at_tc,
        "allmulti": link.get("allmulti", 0),
        "routes": [route["dst"] for route in topology.ip("edge", "-6", "route", "show", "proto", str(PROTOCOL))],
        "proxies": [entry["dst"] for entry in topology.ip("edge", "-6", "neigh", "show", "proxy")],
        **sysctls,
    }


class Hosted(Protocol):
    """A daemon that somebody runs with the unit's privileges, on the edge. `user` and `group` are whose it is."""

    user: int
    group: int

    def configure(self, config: str) -> None: ...

    def enter(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, in its view of the files, as root."""

    def program(self, *argv: str) -> Sequence[str]:
        """The words of a command of npd6-xdp there."""

    def status_of_process(self) -> str:
        """Its /proc/PID/status."""

    def reload(self) -> subprocess.CompletedProcess[str]: ...

    def stop(self) -> int:
        """Its exit status."""

    @property
    def log(self) -> str: ...


class UnderSetpriv:
    """The daemon under setpriv(1) and prlimit(1), as the unit's directives say."""

    user = group = USER

    def __init__(self, topology: Topology, config: str) -> None:
        self._topology = topology
        topology.directory.chmod(0o755)
        runtime = topology.directory / "runtime"
        runtime.mkdir(mode=0o750)
        os.chown(runtime, USER, USER)
        limit = int(unit()["Service"]["LimitMEMLOCK"].removesuffix("M")) << 20
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        self._running = RunningDaemon(
            topology,
            config,
            environment={"TREE": str(ROOT), "VENV": sys.prefix, "PYTHON": _PYTHON, "KEPT": _kept()},
            program=(
                *("unshare", "--mount", "bash", "-c", _AS_USER, "bash", str(topology.directory)),
                str(limit if hard < 0 else min(limit, hard)),
                ",".join(f"+{name}" for name in capabilities()),
                str(USER),
            ),
        )

    def __enter__(self) -> Self:
        self._running.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._running.__exit__(kind, error, tb)

    def configure(self, config: str) -> None:
        self._running.write(config)

    def enter(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self._topology.run("edge", "nsenter", "-t", str(self._running.process.pid), "-m", *argv)

    def program(self, *argv: str) -> Sequence[str]:
        directory = self._topology.directory
        return ("env", f"PYTHONPATH={directory}/tree", f"{directory}/{_PYTHON}", "-m", "npd6_xdp", *argv)

    def status_of_process(self) -> str:
        return Path(f"/proc/{self._running.process.pid}/status").read_text()

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.enter(*self.program("reload"))

    def stop(self) -> int:
        return self._running.stop()

    @property
    def log(self) -> str:
        return self._running.log


class UnderSystemd:
    """The very unit under a real systemd, which is init of namespaces of its own. `drop_in` is added to the unit.

    What earlier starts of the tests have compiled is kept there, too, unless it is to be the `first` on its machine.
    """

    def __init__(self, topology: Topology, config: str, drop_in: str = "", *, first: bool = False) -> None:
        self._topology = topology
        self._directory = topology.directory
        self._cgroup = topology.label
        self._log = self._directory / "service.log"
        self._log.touch()
        self._directory.chmod(0o755)
        system = self._directory / "system"
        system.mkdir()
        text = UNIT.read_text().replace("/usr/bin/npd6-xdp clean", f"/run/{_PYTHON} -m npd6_xdp clean")
        text = text.replace("/usr/lib/npd6-xdp/", "/run/tree/deploy/systemd/")
        (system / UNIT.name).write_text(text + _DROP_IN + drop_in)
        (system / "nothing.target").write_text(_NOTHING)
        self.configure(config)
        self._said = self._directory / "systemd.log"
        self._kept = "" if first else _kept()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, "TREE": str(ROOT), "VENV": sys.prefix, "MANAGER": str(MANAGER), "KEPT": self._kept}
        words = ("unshare", "--mount", "bash", "-c", _OUTSIDE, "bash", str(self._directory), self._cgroup, _INSIDE)
        with self._said.open("w") as said:
            self._process = self._topology.popen("edge", *words, stdout=said, stderr=said, env=environment)
        try:
            assert until(self._is_up, 10.0), self._said.read_text()
            self.user, self.group = (int(self.enter("id", option, "npd6-xdp").stdout) for option in ("-u", "-g"))
            started = self.systemctl("start", "npd6-xdp")
            assert started.returncode == 0, self.log
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        print(f"--- npd6-xdp.service\n{self.log}")
        self._end()

    def _is_up(self) -> bool:
        return bool(self.init) and self.systemctl("is-system-running").stdout.strip() in ("running", "degraded")

    @property
    def init(self) -> str:
        """Its first process; empty while there is none yet."""
        assert self._process is not None
        assert self._process.poll() is None, self._said.read_text()
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # and with it, by --kill-child, all that is in there
            self._process.wait()
        script = (
            'mount -t cgroup2 cgroup2 "$1/cgroup" && until find "$1/cgroup/$2" -depth -type d -exec rmdir {} +;'
            " do sleep 0.05; done"
        )
        words = ("unshare", "--mount", "bash", "-c", script, "bash", str(self._directory), self._cgroup)
        subprocess.run(words, check=False, capture_output=True, timeout=120)

    def configure(self, config: str) -> None:
        (self._directory / "npd6-xdp.toml").write_text(config)

    def enter(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self._topology.run("edge", *self._words(*argv))

    def _words(self, *argv: str) -> Sequence[str]:
        return ("nsenter", "-t", self.init, "-m", "-p", "-u", "-i", "-C", *argv)

    def systemctl(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """systemctl(1) there."""
        return self.enter("systemctl", "--no-pager", *argv)

    def show(self, key: str) -> str:
        """A property of the unit."""
        return self._properties(key).get(key, "")

    def _properties(self, *keys: str) -> dict[str, str]:
        """At one time. systemctl(1) asks a socket that is the mount namespace's, so it can do without the edge's."""
        words = self._words("systemctl", "show", "--property", ",".join(keys), "npd6-xdp")
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def comes_to(self, **states: str) -> bool:
        """Wait until properties of the unit are these, "A|B" for either; "!" in front of what one is not to be. Whether
        it came to it.

        It asks ten times a second: to ask takes a hundredth of a second of a processor.
        """

        def is_there() -> bool:
            time.sleep(0.08)
            found = self._properties(*states)
            return all(key in found and _is(found[key], state) for key, state in states.items())

        return until(is_there, 20.0)

    def status(self) -> dict[str, Any]:
        """What `status --json` says, without a process for each question."""
        return ask(Path(f"/proc/{self.init}/root{CONTROL}"), {"verb": "status"})

    def program(self, *argv: str) -> Sequence[str]:
        return ("env", "PYTHONPATH=/run/tree", f"/run/{_PYTHON}", "-m", "npd6_xdp", *argv)

    def status_of_process(self) -> str:
        return self.enter("cat", f"/proc/{self.show('MainPID')}/status").stdout

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.systemctl("reload", "npd6-xdp")

    def stop(self) -> int:
        self.systemctl("stop", "npd6-xdp")
        return int(self.show("ExecMainStatus"))

    def send(self, signum: signal.Signals) -> None:
        """Send the daemon a signal."""
        self.enter("kill", f"-{signum.value}", self.show("MainPID"))

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, words: str, times: int = 1) -> bool:
        """Whether the log has this so often, and no more: a thread writes it, which a busy machine runs later than
        READY and all else that the process does.
        """
        return until(lambda: self.log.count(words) >= times) and self.log.count(words) == times


def _kept() -> str:
    """Where the tests' daemons keep what they have compiled; "" if nowhere of their own."""
    return os.environ.get("CACHE_DIRECTORY", "")


def _is(found: str, state: str) -> bool:
    return found != state[1:] if state.startswith("!") else found in state.split("|")
