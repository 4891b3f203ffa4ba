# SPDX-License-Identifier: GPL-2.0-or-later
"""What the package's tests share: the package, built once; a later version; and a root that has only it installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.sources import build, later_tree
from tests.roots import PROJECT, ROOTS, Root, fresh_root


@pytest.fixture(scope="package")
def debian() -> None:
    """Skips where a Debian package can't be built and installed."""
    if not (ROOTS / "complete").exists() or os.geteuid() != 0:
        pytest.skip("takes root, and the base root of deploy/setup.sh --test (Debian and Ubuntu)")


@pytest.fixture(scope="package")
def deb(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this tree."""
    return build(PROJECT, tmp_path_factory.mktemp("dist") / "not/there yet")


@pytest.fixture(scope="package")
def source_package(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of this tree: its .dsc, beside which is the rest."""
    return build(PROJECT, tmp_path_factory.mktemp("source"), "--source")


@pytest.fixture(scope="package")
def later_deb(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a later version, with another reference configuration, built under an odd environment."""
    tree = tmp_path_factory.mktemp("later")
    later_tree(tree)
    out = tmp_path_factory.mktemp("dist")
    (out / "a place").mkdir()
    odd = {"TMPDIR": str(out / "a place"), "PYTHON": "/none", "DEBFULLNAME": "npd6 & xdp/", "DEBEMAIL": "a@b.invalid"}
    return build(tree, out, **odd, DPKG_DEB_COMPRESSOR_TYPE="gzip", DPKG_DEB_COMPRESSOR_LEVEL="1")  # in no time


@pytest.fixture(scope="package")
def earlier_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a unit as it was before there was a store; EARLIER_DEB may name the file of a real one."""
    if named := os.environ.get("EARLIER_DEB"):
        return Path(named)
    place = tmp_path_factory.mktemp("earlier")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, place / "tree"], check=True)
    (unit,) = (place / "tree").rglob("systemd/system/npd6-xdp.service")
    unit.write_text(re.sub(r"(?m)^(ExecStopPost|FileDescriptorStoreMax|Environment)=.*\n", "", unit.read_text()))
    shutil.rmtree(place / "tree/usr/lib/npd6-xdp")
    words = ("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", place / "tree", place / "earlier.deb")
    subprocess.run(words, check=True, capture_output=True)
    return place / "earlier.deb"


@pytest.fixture(scope="package")
def installed(deb: Path) -> Iterator[Root]:
    """A root with nothing but the package installed, and what it depends on. Lay others over it, and leave it alone."""
    with fresh_root() as root:
        root.install(deb)
        yield root
