# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a configuration file, of whatever format, with an error that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from npd6_xdp.core.errors import ConfigError, Mistake


def read_text(path: Path) -> str:
    """A file's text. Raises ConfigError if it can't be read, or isn't UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), [Mistake("", f"can't read it: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Mistake("", f"not UTF-8 text: byte {error.start} can't be decoded")]) from error
