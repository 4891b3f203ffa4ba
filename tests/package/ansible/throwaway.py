# SPDX-License-Identifier: GPL-2.0-or-later
"""Ansible's connection to a throwaway root (tests/roots.py): `ansible_host` is the id of its process 1."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: throwaway
short_description: a throwaway root
description: Runs commands in the namespaces of a throwaway root, as root.
options:
  host:
    description: The id of its process 1.
    vars:
      - name: ansible_host
"""


class Connection(ConnectionBase):  # type: ignore[misc]
    transport = "throwaway"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        init = self.get_option("host")
        words = ("nsenter", f"--target={init}", *("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net"))
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env = ("env", "-i", path, "HOME=/root", "LC_ALL=C.UTF-8")
        done = subprocess.run(
            (*words, *env, "sh", "-c", cmd),
            input=in_data or b"",
            capture_output=True,
            cwd="/",
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _inside(self, path: str) -> str:
        return f"/proc/{self.get_option('host')}/root{path}"

    def put_file(self, in_path: str, out_path: str) -> None:
        shutil.copyfile(in_path, self._inside(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        shutil.copyfile(self._inside(in_path), out_path)

    def close(self) -> Any:
        self._connected = False
