# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenes on the kernel that is here, as far as it has the devices, and what deploy/kernels.sh says to nonsense."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.__main__ import BY_NAME, NAMES, SCENES
from tests.roots import PROJECT

SCRIPT = PROJECT / "deploy/kernels.sh"


SMALL = {"growth": "300", "many": "20"}
"""Scenes that run by name only, and how many things each has to do with here: by an environment variable."""


def run(*argv: str, timeout: float = 180.0, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        argv, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=timeout, env=environment
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_scenes_hold_on_the_kernel_that_is_here_as_far_as_it_has_their_devices() -> None:
    names = [name for name in NAMES if name not in BY_NAME or name in SMALL]
    sizes = {name.upper(): count for name, count in SMALL.items()}
    done = run(sys.executable, "-m", "tests.kernels", *names, timeout=300.0, **sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok ") > 40
    assert re.findall("^begins  (.*)$", done.stdout, re.MULTILINE)[:3] == ["build", "start", "smoke"]
    assert "ok      growth: the client waits for the reload to its end" in done.stdout
    assert "ok      growth: another program has taken over" in done.stdout
    assert "ok      end: nothing is left behind" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_kind_of_device_that_this_kernel_lacks_is_left_out_or_where_all_must_run_a_failure() -> None:
    done = run(sys.executable, "-m", "tests.kernels", "vrf")
    if "left out: vrf" not in done.stdout:
        return  # there is nothing to leave out here
    assert done.returncode == 0
    done = run(sys.executable, "-m", "tests.kernels", "--all", "vrf")
    assert done.returncode == 1
    assert "FAILED  vrf: vrf: this kernel makes no device of that kind" in done.stdout


@pytest.mark.parametrize("script", ["kernels.sh", "kernels-arm64.sh"])
def test_help_says_how_to_call_it_and_boots_nothing(script: str) -> None:
    done = run(str(PROJECT / "deploy" / script), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Boots Debian's kernel")
    assert f"  {script} [" in done.stdout
    assert done.stdout.splitlines()[-1][-1] == "."


def test_an_option_that_the_kernel_for_arm64_does_not_take_is_no_scene() -> None:
    done = run(str(PROJECT / "deploy/kernels-arm64.sh"), "--scene", "bond")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kernels-arm64: unknown argument --scene; it takes names of scenes\n"


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="takes Debian's packages, by apt")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--scene"], "kernels: --scene takes the name of a scene"),
        (["--scene", "nope"], f"kernels: nope: no such scene; there are {', '.join(SCENES)}"),
        (["--suite"], "kernels: --suite takes the name of one of Debian's suites"),
        (["--fetch"], "kernels: --fetch goes with --ci"),
        (["--ci", "linux-image-amd64"], "kernels: --ci has scenes and kernels of its own"),
        (["--ci", "--scene", "bond"], "kernels: --ci has scenes and kernels of its own"),
        (["--scenes", "bond"], "kernels: unknown argument --scenes; it takes --scene NAME, and packages of apt's"),
        (["6.1"], "kernels: unknown argument 6.1; it takes --scene NAME, and packages of apt's"),
        # apt itself would take it for a pattern, and fetch every package of 6.1
        (["linux-image-6.1"], "kernels: linux-image-6.1: apt knows no such package"),
    ],
)
def test_a_wrong_argument_is_said_in_one_line_before_anything_is_fetched_or_booted(argv: list[str], said: str) -> None:
    done = run(str(SCRIPT), *argv)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


APT = r"""#!/bin/bash
# What stands for apt-get and apt-cache: it knows one kernel, and its first FAILURES attempts to fetch fail.
cd "$(dirname "$0")"
case "${0##*/} $1" in
    apt-cache\ pkgnames) echo linux-image-amd64; echo linux-image-6.1.0-1-amd64 ;;
    apt-cache\ depends) [ "$3" != linux-image-amd64 ] || echo "  Depends: linux-image-6.1.0-1-amd64" ;;
    apt-get\ update) echo update >>asked ;;
    apt-get\ download)
        echo "download ${*:3}" >>asked
        [ "$(grep -c download asked)" -gt "$FAILURES" ] || { echo "E: Failed to fetch, said the mirror" >&2; exit 100; }
        cp kernel.deb "$OLDPWD/"
        ;;
esac
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """A directory with such an apt, and a package of a kernel that has no code and one module's place."""
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: linux-image-6.1.0-1-amd64\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: none\n"
    )
    for name in ("boot/vmlinuz-6.1.0-1-amd64", "lib/modules/6.1.0-1-amd64/kernel/none"):
        (package / name).parent.mkdir(parents=True)
        (package / name).touch()
    (tmp_path / "bin").mkdir()
    subprocess.run(("dpkg-deb", "-b", package, tmp_path / "bin/kernel.deb"), check=True, capture_output=True)
    for name in ("apt-get", "apt-cache"):
        (tmp_path / "bin" / name).write_text(APT)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="makes a package of Debian's")
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_kernel_that_apt_fails_to_fetch_is_asked_for_again_and_after_three_attempts_apts_words_are_shown(
    apt: Path, failures: int
) -> None:
    environment = {
        **os.environ,
        "PATH": f"{apt / 'bin'}:{os.environ['PATH']}",
        "CACHE": str(apt / "cache"),
        "PAUSE": "0",
        "FAILURES": str(failures),
    }
    done = subprocess.run(
        (SCRIPT, "--ci", "--fetch"), env=environment, capture_output=True, text=True, timeout=180.0, check=False
    )
    if "left out" in done.stdout:
        return  # not Debian
    asked = (apt / "bin/asked").read_text().splitlines()
    download = "download linux-image-6.1.0-1-amd64"
    assert asked == [download, *["update", download] * min(failures, 2)]
    if failures < 3:
        assert done.returncode == 0, done.stderr
        assert (apt / "cache/linux-image-6.1.0-1-amd64/complete").exists()
    else:
        assert done.returncode == 1
        assert "E: Failed to fetch, said the mirror" in done.stderr
        assert "apt can't fetch it" in done.stderr


GUEST = r"""#!/bin/bash
# What stands for QEMU: a guest's console, by the name of its kernel. It goes on when the test has seen how it began.
for word; do case $word in *.initrd) image=$(basename "$word" .initrd) ;; esac; done
line() { printf '%s\r\n' "$1"; }
line 'Linux 6: smoke, bond'
line 'begins  smoke'
line 'ok      smoke: static'
for _ in {1..200}; do [ -e go ] && break; sleep 0.1; done
line 'begins  bond'
[ "$image" = good ] || { line 'FAILED  bond: by both: nothing'; line 'kernels: exit status 1'; exit; }
line 'ok      bond: by both'
line 'kernels: exit status 0'
"""


def test_each_scene_is_said_as_it_begins_and_all_that_a_kernel_printed_where_it_failed(tmp_path: Path) -> None:
    """By the script's own lines for booting, with another QEMU."""
    (tmp_path / "qemu-system-x86_64").write_text(GUEST)
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    text = SCRIPT.read_text()
    boot = text[text.index("# --- boot ---") : text.index("\nimages=()")]
    head = f"set -euo pipefail; say() {{ echo kernels: $*; }}; work={tmp_path} cache={tmp_path}/cache accelerated=no"
    head += " limit=60 quiet= scenes=(smoke bond) running=(); mkdir -p $cache/{good,bad}\n"
    script = f"{head}{boot}\nside_by_side good bad"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ("bash", "-c", script), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "kernels: booting good bad, with smoke bond\n"
        assert re.fullmatch("kernels: (good|bad): smoke\n", running.stdout.readline()), "while it goes on"
        (tmp_path / "go").touch()
        rest = running.stdout.read().splitlines()
        assert running.wait(60) == 1
    assert {"kernels: good: bond", "kernels: bad: bond"} <= set(rest)
    assert "ok      smoke: static" in rest, "all that the one printed"
    assert rest.count("FAILED  bond: by both: nothing") == 1
    assert "ok      bond: by both" not in rest, "but nothing of the other"
    assert any(re.fullmatch("kernels: good: all 2 checks held, in [0-9]+ s", line) for line in rest)
    assert any(line.startswith("kernels: bad: FAILED after") for line in rest)
