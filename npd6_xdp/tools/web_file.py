# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a web configuration file: YAML, by python3-yaml, without making a Python object of anything in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import ConfigError, Mistake, NotInstalled
from npd6_xdp.core.web_config import WebConfig, warnings
from npd6_xdp.core.web_config_file import Items, Kind, Node, Pairs, Scalar, web_config
from npd6_xdp.system.http.passwords import Lacking, Unusable, Verdicts
from npd6_xdp.system.http.secured import mend_of, secured
from npd6_xdp.tools.files import read_text

MOST = 1 << 16
"""Bytes of a file: some 800 users. Python's YAML takes a second for as much."""

_DEEPEST = 8  # tables and lists within each other; those that mean something have three
_MOST_NODES = 20_000  # what aliases repeat counts as often as it is there
_PREFIX = "tag:yaml.org,2002:"
_KINDS = {"str": Kind.TEXT, "bool": Kind.BOOLEAN, "null": Kind.NULL}


def read_web(path: str) -> WebConfig:
    """What a web configuration file says. Raises ConfigError with each mistake's place, and MachineError where there
    is no YAML for Python.
    """
    try:
        text = read_text(Path(path), MOST)
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):
            raise ConfigError(path, [Mistake("", f"{error.mistakes[0].message}; {mend_of(path)}")]) from error
        raise
    return parse_web(text, path)


def parse_web(text: str, source: str) -> WebConfig:
    """The same of a file's text."""
    return web_config(_tree(text, source), source)


def look(config: Config) -> list[str]:
    """What is unwise about a configuration's web configuration. Raises ConfigError where it can't be used; but what
    this machine lacks for it, or this user may not read, the daemon's may have and read, so that is only unwise.
    """
    if not config.metrics_web_config:
        return []
    web = read_web(config.metrics_web_config)
    said = warnings(web, config.metrics_listen)
    try:
        said += secured(web, Verdicts()).warnings(time.time())
    except Lacking as error:
        return [*said, f"{error}; so it isn't looked at"]
    except Unusable as error:
        raise error.place.refusal(error.what) from error
    return said


def _tree(text: str, source: str) -> Node | None:
    try:
        import yaml
    except ImportError as error:
        raise NotInstalled(
            f"{source}: Python's yaml is missing, which reads it: install python3-yaml, or npd6-xdp[web] by pip"
        ) from error
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        said = " ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        raise _no_yaml(source, said, *((mark.line + 1, mark.column + 1) if mark else ())) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        said = f"a character that YAML has no place for, {error.character!r}"
        raise _no_yaml(source, said, line, column) from None
    except RecursionError:
        raise _no_yaml(source, "it nests too deeply") from None
    except (ValueError, OverflowError):  # of an escape that is no character, or a version of a thousand digits
        raise _no_yaml(source, "a number or an escape in it is out of range") from None
    return None if root is None else _Tree(source).node(root, _DEEPEST)


def _no_yaml(source: str, said: str, line: int = 0, column: int = 0) -> ConfigError:
    return ConfigError(source, [Mistake("", f"not valid YAML: {said}", line, column)])


class _Tree:
    """Makes values of PyYAML's nodes, of which aliases may make one that is in itself, or a million."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = _MOST_NODES

    def node(self, found: Any, deep: int) -> Node:
        """One node, with what is in it."""
        at = found.start_mark.line + 1, found.start_mark.column + 1
        self._left -= 1
        if not deep or not self._left:
            raise ConfigError(self._source, [Mistake("", "there is too much within each other; write it plainly", *at)])
        name = found.tag.removeprefix(_PREFIX)
        match found.id:
            case "mapping" if name == "map":
                pairs = ((self.node(key, deep - 1), self.node(value, deep - 1)) for key, value in found.value)
                return Pairs(*at, tuple(pairs))
            case "sequence" if name == "seq":
                return Items(*at, tuple(self.node(item, deep - 1) for item in found.value))
            case "scalar" if name in (*_KINDS, "int", "float", "timestamp", "value", "merge"):
                return Scalar(*at, found.value, _KINDS.get(name, Kind.OTHER))
        raise ConfigError(self._source, [Mistake("", f"a tag isn't taken, {found.tag[:60]!r}; leave it out", *at)])
