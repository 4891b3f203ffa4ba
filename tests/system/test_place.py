# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a process is: the machine's name, and its network namespace by name, or else by number."""

from __future__ import annotations

import os
import subprocess

from npd6_xdp.system.place import place


def test_a_namespace_has_its_name_or_else_its_number() -> None:
    name = f"npd6-{os.getpid()}-place"
    assert place().host == os.uname().nodename
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with subprocess.Popen(
            ["ip", "netns", "exec", name, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as inside:
            assert inside.stdin
            assert inside.stdout
            inside.stdin.write(b"\n")
            inside.stdin.flush()
            assert inside.stdout.readline() == b"\n", "it is inside by now"
            assert place(str(inside.pid)).namespace == name
            inside.stdin.close()
        with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as unnamed:
            assert unnamed.stdin
            assert unnamed.stdout
            unnamed.stdin.write(b"\n")
            unnamed.stdin.flush()
            assert unnamed.stdout.readline() == b"\n"
            number = os.stat(f"/proc/{unnamed.pid}/ns/net").st_ino  # noqa: PTH116
            assert place(str(unnamed.pid)).namespace == f"net:[{number}]"
            unnamed.stdin.close()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
