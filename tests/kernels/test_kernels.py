# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenes on the kernel that is here, as far as it has the devices, and what deploy/kernels.sh says to nonsense."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.kernels.__main__ import SCENES
from tests.roots import PROJECT

SCRIPT = PROJECT / "deploy/kernels.sh"


def run(*argv: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_scenes_hold_on_the_kernel_that_is_here_as_far_as_it_has_their_devices() -> None:
    done = run(sys.executable, "-m", "tests.kernels", timeout=300.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok ") > 40
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


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="takes Debian's packages, by apt")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--scene"], "kernels: --scene takes the name of a scene"),
        (["--scene", "nope"], f"kernels: nope: no such scene; there are {', '.join(SCENES)}"),
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
