# SPDX-License-Identifier: GPL-2.0-or-later
"""The program is compiled beside the reading of a long file, where that is worth it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from npd6_xdp import compiling
from npd6_xdp.compiling import Compiling
from npd6_xdp.core.errors import MachineError
from npd6_xdp.system import cgroup
from npd6_xdp.system.aside import reap
from npd6_xdp.system.bpf import compiled, compiler, load
from npd6_xdp.system.bpf.sizes import sizes_for
from tests.datapath.harness import UNLIMITED, entry, table
from tests.netns.wire import until

_REFUSED = """
import sys
from pathlib import Path
from npd6_xdp import foreground
from npd6_xdp.compiling import Compiling
from npd6_xdp.verbs import toml_file
close = Compiling.close
Compiling.close = lambda self: (close(self), print("closed", flush=True))
sys.exit(foreground.run(Path(sys.argv[1]), "--config", toml_file))
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CACHE_DIRECTORY", os.devnull)
    yield
    assert until(reap), "no process stays"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "npd6-xdp.toml"
    path.write_text("#" * compiling._LONG)
    return path


def made(file: Path) -> Compiling:
    found = Compiling.worth_it(file)
    assert found is not None
    return found


def test_what_was_compiled_beside_is_loaded_without_the_compiler(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(made(file)) as beside:
        ahead = beside.take()
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


def test_what_is_left_out_for_debuggers_changes_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = load.compile_ahead()
    monkeypatch.setattr(compiler, "FLAGS", tuple(flag for flag in compiler.FLAGS if flag != "-g0"))
    assert load.compile_ahead() == ahead


def test_what_was_compiled_beside_is_kept_for_the_next_start(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
    tmp_path.chmod(0o700)
    with closing(made(file)) as first:
        load.load(sizes_for([table(entry())], UNLIMITED), first.take()).close()

    def refuse() -> NoReturn:
        pytest.fail("it is kept")

    monkeypatch.setattr(compiling, "compile_ahead", refuse)
    assert list(compiling._compiled()) == [b""]
    with closing(made(file)) as second:
        assert second.take() == b""


def test_a_short_file_and_one_that_is_missing_are_read_first(file: Path) -> None:
    file.write_text("#" * (compiling._LONG - 1))
    assert Compiling.worth_it(file) is None
    file.unlink()
    assert Compiling.worth_it(file) is None


def test_where_memory_is_short_one_comes_after_the_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = cgroup.MemoryLimit(Path("memory.max"), 200_000_000, 100_000_000)
    monkeypatch.setattr(cgroup, "nearest_limit", lambda: limit)
    assert Compiling.worth_it(file) is None
    monkeypatch.setattr(cgroup, "nearest_limit", lambda: limit._replace(left=120_000_000))
    made(file).close()


def test_one_that_fails_leaves_it_to_whoever_loads_to_say_why(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise MachineError("no compiler")

    monkeypatch.setattr(compiling, "compile_ahead", refuse)
    with closing(made(file)) as beside:
        assert beside.take() == b""


def test_a_file_that_is_refused_ends_the_compiling(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _REFUSED, file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "closed\n"), done.stderr
    assert "no interface" in done.stderr
