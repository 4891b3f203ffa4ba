# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel and the sdist: what is in them, and the daemon out of a wheel with the newest that PyPI has for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from npd6_xdp import __version__
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.netns.wire import Wire, configuration, question
from tests.package.sources import bpf_files, copy_tree
from tests.roots import PROJECT

NAME = f"npd6_xdp-{__version__}"
# Nothing of this project's is to be found but what is installed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` makes: the sdist, and out of that the wheel."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    copy_tree(tree)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree)
    return out


METADATA = "import backend, sys; print(backend.prepare_metadata_for_build_wheel(sys.argv[1]))"


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"], ids=["newest", "the distribution's"])
def test_older_setuptools_say_the_licence_too_which_know_no_expression(python: str, tmp_path: Path) -> None:
    """Those before 77; Debian 12 has 66."""
    copy_tree(tmp_path / "tree")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path / "tree/deploy")}
    made = subprocess.run(
        [python, "-c", METADATA, tmp_path], cwd=tmp_path / "tree", env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    text = (tmp_path / made.stdout.split()[-1] / "METADATA").read_text()
    version = run(python, "-c", "import setuptools; print(setuptools.__version__)").partition(".")[0]
    field = "License-Expression" if int(version) >= 77 else "License"
    assert f"\n{field}: GPL-2.0-or-later\n" in text
    assert "\nAuthor: npd6-xdp developers\n" in text


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_both_have_the_bpf_files(dist: Path) -> None:
    wheel = contents(dist / f"{NAME}-py3-none-any.whl")
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        sdist = archive.getnames()
    for path in bpf_files():
        assert wheel[f"npd6_xdp/bpf/{path}"] == (PROJECT / "bpf" / path).read_bytes()
        assert f"{NAME}/bpf/{path}" in sdist
    rules = PROJECT / "deploy/prometheus/rules/npd6-xdp.rules.yml"
    assert wheel[f"npd6_xdp/rules/{rules.name}"] == rules.read_bytes()
    modules = [str(path.relative_to(PROJECT)) for path in (PROJECT / "npd6_xdp").rglob("*.py")]
    assert {*modules, "npd6_xdp/system/http/status.html"} <= wheel.keys()


def test_the_wheel_of_the_sdist_is_that_of_the_tree(dist: Path, tmp_path: Path) -> None:
    copy_tree(tmp_path / "tree")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, tmp_path / "tree")
    name = f"{NAME}-py3-none-any.whl"
    assert contents(tmp_path / name) == contents(dist / name)


def test_it_answers_out_of_a_wheel_with_the_newest_libraries(dist: Path, tmp_path: Path, topology: Topology) -> None:
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", tmp_path / "venv")
    python, program = tmp_path / "venv/bin/python", tmp_path / "venv/bin/npd6-xdp"
    pip = (sys.executable, "-m", "pip", "--python", python)
    newest = ("--upgrade", "--upgrade-strategy", "eager")
    run(*pip, "install", "--quiet", "--no-compile", *newest, dist / f"{NAME}-py3-none-any.whl")
    files = "import npd6_xdp, prometheus_client as p, scapy; print(npd6_xdp.__file__, p.__file__, scapy.__file__)"
    found = run(python, "-c", files, cwd=tmp_path).split()
    assert all(path.startswith(f"{tmp_path}/venv/") for path in found), found
    running = RunningDaemon(topology, configuration(), program=(str(program),), environment={"PYTHONPATH": ""})
    with running, Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS)) is not None
        assert running.solicitations() == {"answered_xdp": 1}
        probe = topology.run("upstream", str(program), "probe", HOST_ADDRESS, "--interface", "eth0", env=ENVIRONMENT)
        assert probe.stdout.startswith(f"{HOST_ADDRESS} is at {EDGE_WAN_MAC}"), probe.stderr
