# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiler's words go to a file of ours, and standard error is back however the compilation ends."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.compiler import compile_program, words_caught
from tests.datapath.harness import Bench
from tests.kernels.machine import WALKED, walked_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")


@contextmanager
def standard_error_is_back() -> Iterator[None]:
    before = os.fstat(2)
    yield
    assert os.path.samestat(os.fstat(2), before)


def test_what_the_compiler_says_is_in_the_error() -> None:
    with standard_error_is_back(), pytest.raises(MachineError, match="undeclared identifier 'nonsense'"):
        compile_program("int passes(void *ctx) { return nonsense; }", "passes", {})


def test_a_program_that_takes_over_is_of_the_same_text_though_another_version_lies_there_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does between a package's upgrade and the daemon's restart: Python writes the maps by the old layout."""
    seen: list[str] = []

    def compiled(source: str, *_: object) -> NoReturn:
        seen.append(source)
        raise MachineError("not now")

    monkeypatch.setattr(load, "compile_program", compiled)
    monkeypatch.setattr(compiler, "BPF_DIRECTORY", tmp_path)
    for text in ("this version", "another version"):
        (tmp_path / "ns_filter.c").write_text(f'#include "wire.h"\nint {text};')
        (tmp_path / "wire.h").write_text(f"header of {text}")
        with pytest.raises(MachineError, match="not now"):
            load.load({})
    assert seen[0] == seen[1]
    assert "header of this version" in seen[0]
    assert "int this version;" in seen[0]


class Heard(KeyboardInterrupt):
    """What a handler raises, as the lab's does."""


def test_a_signal_that_comes_while_it_compiles_is_heard_afterwards() -> None:
    main = threading.get_ident()
    status = Path(f"/proc/self/task/{threading.get_native_id()}/status")

    def is_blocked() -> bool:
        found = re.search(r"^SigBlk:\s*(\w+)", status.read_text(), re.MULTILINE)
        return found is not None and bool(int(found[1], 16) >> signal.SIGUSR1 - 1 & 1)

    def send_once_it_is_blocked(over: threading.Event) -> None:
        while not is_blocked():  # as long as it compiles
            if over.wait(0.001):
                return
        signal.pthread_kill(main, signal.SIGUSR1)

    def hear(signum: int, frame: object) -> None:
        raise Heard

    before = signal.signal(signal.SIGUSR1, hear)
    try:
        for _ in range(20):  # a busy machine may have it compiled before anybody has looked
            over = threading.Event()
            sender = threading.Thread(target=send_once_it_is_blocked, args=(over,))
            sender.start()
            try:
                with standard_error_is_back():
                    compile_program("int passes(void *ctx) { return 2; }", "passes", {})
            except Heard:
                break
            finally:
                over.set()
                sender.join()
        else:
            pytest.fail("never heard")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_clang_that_knows_what_is_its_own_business_by_another_name_compiles_without(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "int passes(void *ctx) { return 2; }"
    monkeypatch.setattr(compiler, "ONCE", ("-Xclang", "-disable-what-there-is-not"))
    compile_program(text, "passes", {})
    assert capfd.readouterr() == ("", ""), "it is nobody's concern"
    with pytest.raises(MachineError, match="use of undeclared identifier") as caught:
        compile_program(text.replace("2", "two"), "passes", {})
    assert str(caught.value).count("undeclared") == 1


def test_what_the_verifier_refuses_of_it_is_compiled_once_more_with_clang_optimizing_as_well(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "int passes(void *ctx) {\n#ifdef REFUSED\nreturn *(volatile int *)16;\n#endif\nreturn 2;\n}"
    monkeypatch.setattr(compiler, "ONCE", ("-DREFUSED=1",))
    module, function = compile_program(text, "passes", {})
    assert function.fd >= 0
    module.cleanup()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(MachineError, match="invalid mem access"):
        compile_program(text, "passes", {"REFUSED": 1})


def test_the_verifier_has_little_to_walk(bench: Bench) -> None:
    """It gives up at a million instructions, and one value too many that stays on the stack brings it halfway there."""
    program = bench.ns_filter.program
    for function in (program.fd, program.tc_fd):
        assert 0 < walked_of(function) <= WALKED


def fail() -> NoReturn:
    os.write(2, b"a word of the compiler's\n")
    raise ValueError


class Late(logging.Handler):
    """A log whose lines are written some time after they were logged."""

    def flush(self) -> None:
        os.write(2, b"a line of the log\n")


def test_what_was_logged_before_is_none_of_the_compilers_words(capfd: pytest.CaptureFixture[str]) -> None:
    """It went where these go, and was never seen where all was well."""
    late = Late()
    log = logging.getLogger("npd6-xdp")
    log.addHandler(late)
    try:
        with pytest.raises(MachineError) as refused, words_caught():
            fail()
    finally:
        log.removeHandler(late)
    assert "a word of the compiler's" in str(refused.value)
    assert "a line of the log" not in str(refused.value)
    assert "a line of the log" in capfd.readouterr().err
