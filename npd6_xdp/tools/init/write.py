# SPDX-License-Identifier: GPL-2.0-or-later
"""The few things that `init` writes: the configuration, sysctls, and a file of them for the next boot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from npd6_xdp.core.errors import MachineError, as_machine_error, remedy
from npd6_xdp.core.names import raw
from npd6_xdp.tools.init.plan import Setting
from npd6_xdp.tools.init.settings import shown

SYSCTLS = Path("/etc/sysctl.d/90-npd6-xdp.conf")
_ROOT = Path("/proc/sys/net/ipv6")


def write_new(path: Path, text: str) -> None:
    """Write a file that isn't there yet: all of it, or nothing, and over nobody's. Raises MachineError."""
    with as_machine_error(f"can't write {path}"):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(file, "w", encoding="utf-8", errors="surrogateescape") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            os.link(beside, path)  # other than a rename, over nothing
        except FileExistsError:
            raise existing(path) from None
        finally:
            with suppress(OSError):
                beside.unlink()


def existing(path: Path, nothing: str = "") -> MachineError:
    """What to say of a file that is there already; `nothing` is what wasn't done, for that."""
    return MachineError(
        f"{path} is there already, and init writes over no file: move it away (mv {path} {path}.old), or write to"
        f" another one (npd6-xdp init > npd6-xdp.toml){nothing}"
    )


def set_now(setting: Setting) -> None:
    """Set a sysctl, and see that it is so. Raises MachineError."""
    path = _ROOT / os.fsdecode(raw(setting.key))
    try:
        path.write_text(setting.value)
        now = path.read_text().strip()
    except OSError as error:
        why = "run as root" if isinstance(error, PermissionError) else "nothing after it was set"
        raise MachineError(f"can't set {shown(setting.key)} to {setting.value}: {remedy(error)}; {why}") from error
    if now != setting.value:
        raise MachineError(
            f"{shown(setting.key)} stays {now}, though it was set to {setting.value}; nothing else was set"
        )


def for_next_boot(settings: Sequence[Setting]) -> str:
    """The text of a file in sysctl.d."""
    lines = [
        "# Written by `npd6-xdp init --apply`. systemd sets what is an interface's when that appears, so the order of",
        "# these lines matters only where they are set by hand (sysctl -p): accept_ra before forwarding, or the",
        "# default route that router advertisements gave is thrown away.",
    ]
    for setting in settings:
        lines += [f"# {setting.why}; before: {setting.now or 'not set'}", f"{_written(setting)} = {setting.value}"]
    return "\n".join(lines) + "\n"


def _written(setting: Setting) -> str:
    """A sysctl's name with the bytes that an interface's name has."""
    return os.fsdecode(raw(shown(setting.key)))


def is_kept(settings: Sequence[Setting], path: Path = SYSCTLS) -> bool:
    """Whether the file for the next boot has them already. Raises MachineError where it is there and says otherwise, or
    couldn't say them.
    """
    for setting in settings:
        if "=" in setting.key:
            raise MachineError(
                f"{path} can't have {shown(setting.key)}, as the interface's name has a \"=\": set it by other means,"
                " and run init without --apply"
            )
    if os.path.lexists(path):
        with suppress(OSError):
            has = {line.replace(" ", "") for line in path.read_text(errors="surrogateescape").splitlines()}
            if all(f"{_written(setting)}={setting.value}" in has for setting in settings):
                return True
        lines = ", ".join(f"{shown(setting.key)} = {setting.value}" for setting in settings)
        raise MachineError(f"{path} is there already, and init writes over no file: add to it: {lines}")
    return False


def keep(settings: Sequence[Setting], path: Path = SYSCTLS) -> bool:
    """Write them down for the next boot; False where the file has them already. Raises MachineError, as is_kept()."""
    if is_kept(settings, path):
        return False
    write_new(path, for_next_boot(settings))
    return True
