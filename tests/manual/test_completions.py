# SPDX-License-Identifier: GPL-2.0-or-later
"""Completions in real shells: loaded as a login shell would, and asked by the Tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from docs import manual
from npd6_xdp.cli import argument_parser

VERBS = list(manual.verbs(argument_parser()))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("completions")
    manual.main(str(directory))
    return directory


class Terminal:
    """An interactive shell behind a pseudo-terminal."""

    def __init__(self, *argv: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "dumb", "PS1": "% ", **environment},
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, pattern: str, seconds: float = 60.0) -> str:
        """What was written, up to what is waited for; all of it where that doesn't come."""
        found, deadline = "", time.monotonic() + seconds
        while not re.search(pattern, found) and (left := deadline - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                found += os.read(self._master, 65536).decode(errors="replace")
        return found


def bash(built: Path, *words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    script = """
        source "$1" && shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _shtab_npd6_xdp
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    argv = ("bash", "--norc", "-c", script, "bash", str(built / "bash-completion/npd6-xdp"), *words)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=built)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_offers_every_command_and_every_option(built: Path) -> None:
    assert bash(built, "npd6-xdp", "") == VERBS
    for verb, parser in manual.verbs(argument_parser()).items():
        options = [name for action in parser._actions for name in action.option_strings]
        assert bash(built, "npd6-xdp", verb, "-") == options


def test_bash_offers_files_and_interfaces_where_they_are_meant(built: Path) -> None:
    assert "man8" in bash(built, "npd6-xdp", "convert", "man")
    assert "man8" in bash(built, "npd6-xdp", "check", "--config", "man")
    assert "lo" in bash(built, "npd6-xdp", "explain", "--interface", "l")
    assert "lo" in bash(built, "npd6-xdp", "probe", "2001", ":", "db8", "::", "1", "--interface", "l")


def test_bash_completes_what_is_typed(built: Path) -> None:
    with Terminal("bash", "--norc", "--noprofile", "-i", INPUTRC="/dev/null") as shell:
        shell.type(f"source {built}/bash-completion/npd6-xdp; echo lo''aded\n")
        assert "loaded" in shell.read_until("loaded")
        shell.type("npd6-xdp expl\t--inter\t")
        assert "explain --interface " in shell.read_until("explain --interface ")


def test_zsh_and_fish_say_in_a_few_words_what_a_command_does(built: Path) -> None:
    files = [path for name in ("zsh/_npd6-xdp", "fish/npd6-xdp.fish") if (path := built / name).exists()]
    assert files, "Debian 12's shtab knows zsh, newer ones fish, too"
    for does in manual.in_short(argument_parser()).values():
        assert all(does in path.read_text() for path in files)


def test_zsh_completes_what_is_typed(built: Path) -> None:
    with Terminal("zsh", "-f", "-i", ZDOTDIR=str(built)) as shell:
        shell.type(f"fpath=({built}/zsh $fpath); autoload -Uz compinit; compinit -u -D; echo lo''aded\n")
        assert "loaded" in shell.read_until(r"\nloaded")
        shell.type("npd6-xdp expl\t")
        assert "explain " in shell.read_until("explain ")
        shell.type("--inter\t")
        assert "--interface " in shell.read_until("--interface +-- the interface that the question comes in by")
