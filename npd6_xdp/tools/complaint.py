# SPDX-License-Identifier: GPL-2.0-or-later
"""The message for an error that ends a command, a line for each problem with what to do, and the exit status."""

from __future__ import annotations

import logging

from npd6_xdp.core.errors import MachineError, NotInstalled, Npd6Error, is_used_up, remedy
from npd6_xdp.core.logged import fields
from npd6_xdp.tools import journal

_LOG = logging.getLogger("npd6-xdp")


def complaint(error: Exception) -> tuple[str, int] | None:
    """The message for an error, and the exit status; None if it is a bug of ours."""
    match error:
        case Npd6Error():
            _LOG.debug("where it happened", exc_info=error, extra=fields(error=str(error)))
            return _prefixed(error), error.exit_status
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] == "scapy":
            package = "install the distribution's package (Debian, Ubuntu, Fedora: python3-scapy)"
            text = f"npd6-xdp: scapy is missing, which this command needs: {package}"
            return text, MachineError.exit_status
        case ImportError():
            what = f"{error.name} is missing" if isinstance(error, ModuleNotFoundError) else f"can't be used: {error}"
            text = f"npd6-xdp: the Python module {what}: install its package, or npd6-xdp, once more"
            return text, NotInstalled.exit_status
        case OSError() if is_used_up(error.errno or 0):
            where = f"{error.filename}: " if error.filename else ""
            return f"npd6-xdp: {where}{remedy(error)}", MachineError.exit_status
    return None


def _prefixed(error: Npd6Error) -> str:
    said = "\n".join(f"npd6-xdp: {line}" for line in str(error).splitlines())
    return journal.prefixed(said, logging.ERROR) if journal.reads_stderr() else said
