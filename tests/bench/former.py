# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp as it was at a commit, out of git: what a change has won is the one over the other, in turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from npd6_xdp.lab.daemon import RunningDaemon
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.machine import HOME
from tests.bench.subjects import Running, Subject, npd6_xdp_config

COMMIT = "066529718e4ad7257d8b1f0c11a92a481ee4cda3"
"""The last one without a fast path in the XDP program."""
NAME = f"npd6-xdp hybrid, commit {COMMIT[:7]}"
_PARTS = ("bpf", "npd6_xdp")


@contextmanager
def unpacked(commit: str = COMMIT) -> Iterator[Path | None]:
    """The commit's program and package in a folder, as they were; None where this isn't a clone that has it."""
    git = ("git", "-C", str(HOME), "-c", f"safe.directory={HOME}")
    with TemporaryDirectory(prefix="npd6-former-") as folder:
        try:
            packed = subprocess.run([*git, "archive", commit, *_PARTS], capture_output=True, check=True).stdout
        except (FileNotFoundError, subprocess.CalledProcessError):
            yield None
            return
        subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
        yield Path(folder)


def subject(tree: Path) -> Subject:
    """That program, with the configuration of HYBRID."""

    def start(ground: Ground) -> Iterator[Running]:
        program = (sys.executable, "-P", "-m", "npd6_xdp")  # not the package in the working directory
        environment = {"PYTHONPATH": str(tree)}
        config = npd6_xdp_config("hybrid", "native")
        with RunningDaemon(ground.topology, config, program=program, environment=environment) as daemon:
            yield Running(daemon.process, daemon)

    return Subject(NAME, tuple(questions(TARGETS)), start, ours=True)
