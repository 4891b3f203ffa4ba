# SPDX-License-Identifier: GPL-2.0-or-later
"""The program is compiled beside the reading of a long file, where that is worth it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from npd6_xdp.core.errors import ConfigError, MachineError, Mistake
from npd6_xdp.core.web_config import NO_WEB_CONFIG
from npd6_xdp.daemon import Daemon, loading
from npd6_xdp.daemon.loading import Compiling
from npd6_xdp.daemon.reading import TomlFile
from npd6_xdp.daemon.service import begin
from npd6_xdp.system import cgroup
from npd6_xdp.system.aside import reap
from npd6_xdp.system.bpf import compiled, load
from npd6_xdp.system.bpf.sizes import sizes_for
from tests.datapath.harness import UNLIMITED, entry, table
from tests.netns.wire import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CACHE_DIRECTORY", os.devnull)
    yield
    assert until(reap), "no process stays"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "npd6-xdp.toml"
    path.write_text("#" * loading._LONG)
    return path


def made(file: Path) -> Compiling:
    found = Compiling.worth_it(str(file))
    assert found is not None
    return found


def test_what_was_compiled_beside_is_loaded_without_the_compiler(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(made(file)) as compiling:
        ahead = compiling.take()
    assert [each.name for each in compiled.Compiled.unpack(ahead).functions] == [
        "ns_filter",
        "ns_filter_tc",
        "hidden_tag",
    ]

    def refuse(*_: object) -> NoReturn:
        pytest.fail("it was compiled already")

    monkeypatch.setattr(load, "compile_program", refuse)
    sizes = sizes_for([table(entry())], UNLIMITED)
    with closing(load.load(sizes, ahead)) as loaded:
        assert loaded.module is None


def test_what_was_compiled_beside_is_kept_for_the_next_start(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
    tmp_path.chmod(0o700)
    with closing(made(file)) as compiling:
        load.load(sizes_for([table(entry())], UNLIMITED), compiling.take()).close()
    assert Compiling.worth_it(str(file)) is None


def test_a_short_file_and_one_that_is_missing_are_read_first(file: Path) -> None:
    file.write_text("#" * (loading._LONG - 1))
    assert Compiling.worth_it(str(file)) is None
    file.unlink()
    assert Compiling.worth_it(str(file)) is None


def test_where_memory_is_short_one_comes_after_the_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = cgroup.MemoryLimit(Path("memory.max"), 100_000_000, 70_000_000)
    monkeypatch.setattr(cgroup, "nearest_limit", lambda: limit)
    assert Compiling.worth_it(str(file)) is None
    monkeypatch.setattr(cgroup, "nearest_limit", lambda: limit._replace(left=90_000_000))
    made(file).close()


def test_one_that_fails_leaves_it_to_whoever_loads_to_say_why(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise MachineError("no compiler")

    monkeypatch.setattr(loading, "compile_ahead", refuse)
    with closing(made(file)) as compiling:
        assert compiling.take() == b""


def test_a_file_that_is_refused_ends_the_compiling(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def refuse() -> NoReturn:
        raise ConfigError(str(file), [Mistake("", "no interface")])

    closed: list[bool] = []
    monkeypatch.setattr(Compiling, "worth_it", lambda _: SimpleNamespace(close=lambda: closed.append(True)))
    with pytest.raises(ConfigError):
        Daemon(begin(), TomlFile(refuse, str(file), lambda _: NO_WEB_CONFIG), lambda _: None, str(file))
    assert closed == [True]
