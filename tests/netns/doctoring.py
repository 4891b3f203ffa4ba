# SPDX-License-Identifier: GPL-2.0-or-later
"""A doctor at a topology's edge: one process for many looks, so that each takes no start; and scenes for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from npd6_xdp.core.config_file import parse
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc
from npd6_xdp.tools.doctor import examine
from npd6_xdp.tools.doctor.finding import Finding, Level, findings_json
from npd6_xdp.tools.doctor.reading import read

NOBODY = Path("/nonexistent/control.sock")


class Doctor:
    """Looks at the edge; `look` says what is found with a configuration file, and the daemon of a control socket."""

    def __init__(self, topology: Topology) -> None:
        argv = ["ip", "netns", "exec", topology.name("edge"), sys.executable, "-m", "tests.netns.doctoring"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def look(self, config: Path, control: Path = NOBODY, *, attach: bool = False) -> list[Finding]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(config), str(control), attach]) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return [Finding(each["check"], Level(each["level"]), each["message"], tuple(each["mend"])) for each in found]


def of(findings: Sequence[Finding], check: str, *levels: Level) -> list[Finding]:
    """Those of a check that aren't ok; of these levels, if any are named."""
    return [each for each in findings if each.check == check and each.level in (levels or NOT_OK)]


NOT_OK = (Level.NOTE, Level.WARN, Level.FAIL)


def attached(interface: str, how: str) -> None:
    """Attach a program that passes everything, and keep it by a link until this process ends; or leave it there."""
    module, function = compile_program("int xdp_pass(void *ctx) { return 2; }", "xdp_pass", {})
    if how == "left":
        module.attach_xdp(interface, function, 2)  # XDP_FLAGS_SKB_MODE
        os._exit(0)  # bcc would take it off
    assert load_bcc().lib.bpf_link_create(function.fd, socket.if_nametoindex(interface), 37, None) >= 0
    print("attached", flush=True)
    time.sleep(600)


def main() -> None:
    if sys.argv[1:]:
        attached(*sys.argv[1:])
        return
    for line in sys.stdin:
        path, control, attach = json.loads(line)
        text = Path(path).read_text()
        facts = read(parse(text, path), Path(path), text, Path(control), attach=attach)
        print(json.dumps(findings_json(examine(facts))), flush=True)


if __name__ == "__main__":
    main()
