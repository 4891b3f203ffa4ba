# SPDX-License-Identifier: GPL-2.0-or-later
"""Throwaway roots of this machine's release: an overlay over the base that deploy/debian/root.sh makes.

Each lives in namespaces of its own, with its own /dev, /proc, /sys, /run and process 1, and what is written there stays
in memory. So nothing of it outlives its `with` block, nor this process, however that ends; only an empty cgroup may
stay after SIGKILL, which the next root removes. Of this machine's sysctls it can set those of its network only.

    with fresh_root() as root:
        root.run("apt-get", "install", "-y", "hello", online=True)
        print((root.path / "etc/debian_version").read_text())
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ROOTS = PROJECT / ".venv/root"
"""Where setup.sh --test has root.sh make the base, and where apt keeps what packages it has fetched for any root."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
_ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **_PROXIES}

# All of it in one cgroup, so that a service manager in there finds itself at the top of its own.
_OUTSIDE = """
set -e
mount -t cgroup2 cgroup2 /mnt
mkdir "/mnt/$1"
echo $$ > "/mnt/$1/cgroup.procs"
umount /mnt
shift
exec "$@"
"""
_INSIDE = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
cd /mnt/root
mount --bind "$2" var/cache/apt/archives
mkdir /mnt/dev
cp -a dev/. /mnt/dev
rm -f /mnt/dev/console /mnt/dev/tty[0-9]*
mount --bind /mnt/dev dev
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
ln -sf pts/ptmx dev/ptmx
mount -t proc proc proc
mount --bind proc/sys/net proc/sys/net
mount --rbind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/lock
pivot_root . .
umount -l .
cd /
echo ready
shift 2
exec "$@" < /dev/null > /run/init.log 2>&1
"""
# The empty cgroups of processes that are gone, and those that are named.
_SWEEP = """
mount -t cgroup2 cgroup2 /mnt && cd /mnt || exit
for group in npd6-root-*; do
    pid=${group#npd6-root-}
    if [ "$group" = "$1" ]; then
        until find "$group" -depth -type d -exec rmdir {} + 2> /dev/null; do sleep 0.02; done
    elif [ -d "$group" ] && ! [ -d "/proc/${pid%-*}" ]; then
        find "$group" -depth -type d -exec rmdir {} +
    fi
done
"""
_SLEEP = ("sleep", "infinity")
_SYSTEMD = ("env", "container=npd6-xdp", "/lib/systemd/systemd", "--show-status=no")
_numbers = count()


class RootError(Exception):
    """A root can't be made, or a command failed in it; the text has what was said."""


class Root:
    """A root that is up. What it is made by: fresh_root()."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.init = _only_child(process.pid)
        """Its process 1, as this machine numbers it."""
        self.path = Path(f"/proc/{self.init}/root")
        """Its files, for this process. Absolute symbolic links in there lead astray, into this machine's own."""

    def run(
        self,
        *argv: str,
        check: bool = True,
        online: bool = False,
        timeout: float = 900.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end, as root, and return it with its output; stderr is in stdout if `check`.

        It sees the root's network or, if `online`, this process's. Raises RootError, if `check`, when it fails.
        """
        done = subprocess.run(
            self.words(*argv, online=online),
            env={**_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if check else subprocess.PIPE,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            raise RootError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}")
        return done

    def words(self, *argv: str, online: bool = False) -> tuple[str, ...]:
        """The words of a command of this machine that runs `argv` in there."""
        networks = () if online else ("--net",)
        return ("nsenter", f"--target={self.init}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", *networks, *argv)

    def install(self, *packages: str | Path, options: Iterable[str] = ()) -> str:
        """Have apt install packages, or files of packages, without those that are only recommended; what apt said.

        They are fetched over this process's network, if they must be. `options` are dpkg's.
        """
        names = []
        for package in packages:
            if isinstance(package, Path):
                shutil.copy(package, self.path / "tmp" / package.name)
                package = f"/tmp/{package.name}"  # noqa: S108 (the root's)
            names.append(package)
        words = [
            "apt-get",
            "-qy",
            "--no-install-recommends",
            "-oDpkg::Use-Pty=0",
            "-oDebug::NoLocking=true",  # what is fetched is all roots', and the others may be at it
            *(f"-oDpkg::Options::={option}" for option in options),
        ]
        if (done := self.run(*words, "--no-download", "install", *names, check=False)).returncode == 0:
            return done.stdout
        with (ROOTS / "fetching").open("w") as fetching:
            fcntl.flock(fetching, fcntl.LOCK_EX)
            fetched = self.run(*words, "--download-only", "install", *names, online=True)
        return fetched.stdout + self.run(*words, "install", *names).stdout

    def systemctl(self, *argv: str, check: bool = True) -> str:
        """systemctl(1) in there, if it was booted; what it wrote."""
        return self.run("systemctl", "--no-pager", *argv, check=check).stdout.strip()

    def _wait_until_up(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.systemctl("is-system-running", check=False) not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise RootError(f"systemd isn't up after {timeout:.0f} s\n{(self.path / 'run/init.log').read_text()}")
            time.sleep(0.05)


@contextmanager
def fresh_root(*, over: Root | None = None, namespace: str | None = None, boot: bool = False) -> Iterator[Root]:
    """A root as debootstrap leaves it or, laid over another that is up, as that one is now (and is to stay meanwhile).

    `namespace` is the network namespace that it is in, as `ip netns` lists it; without one it is in this process's, or,
    to `boot`, in an empty one. `boot` starts systemd in it, which must have been installed then.
    """
    if not (ROOTS / "complete").exists():
        raise RootError("there is no base root: deploy/setup.sh --test")
    name = f"npd6-root-{os.getpid()}-{next(_numbers)}"
    argv = ["setpriv", "--pdeathsig", "KILL"]
    if namespace is not None:
        argv += ["ip", "netns", "exec", namespace]
    argv += ["unshare", "--mount", "bash", "-c", _OUTSIDE, "bash", name]
    if over is not None:
        argv += ["nsenter", f"--target={over.init}", "--mount"]
    argv += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup"]
    if boot and namespace is None:
        argv += ["--net"]
    lower = ("/", "/var/cache/apt/archives") if over else (str(ROOTS / "base"), str(ROOTS / "archives"))
    argv += ["bash", "-c", _INSIDE, "bash", *lower, *(_SYSTEMD if boot else _SLEEP)]
    environment = {**_ENVIRONMENT, "PATH": f"{PATH}:{os.environ['PATH']}"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout is not None
        if (said := process.stdout.readline()) != "ready\n":
            raise RootError(f"the root can't be made: {said}{process.stdout.read()}")
        root = Root(name, process)
        if boot:
            root._wait_until_up(120.0)
        yield root
    finally:
        process.kill()  # and with it, by --kill-child, all that is in there
        process.communicate()
        sweep = ("unshare", "--mount", "bash", "-c", _SWEEP, "bash", name)
        subprocess.run(sweep, check=False, capture_output=True, timeout=60)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
