# SPDX-License-Identifier: GPL-2.0-or-later
"""What both readers share: the remarks and mistakes of a file, its white space, addresses and names."""

from __future__ import annotations

from ipaddress import IPv6Address

from npd6_xdp.core.errors import ConfigError, Mistake

SPACE = " \t\n\v\f\r"
"""isspace() in the C locale: what both programs skip."""

MOST_TOGETHER = 1_000_000
"""Pairs of a file's lines that hold for the same addresses: each may be written, so that they take 10 s and 150 MB."""

# --- What is said on the way ---


class Notes:
    """The mistakes of a file, and the remarks on it. `goes_on`: what its own program goes on without is no mistake."""

    def __init__(self, source: str, *, goes_on: bool = False) -> None:
        self.source = plain(source)
        self.goes_on = goes_on
        self.lost: list[tuple[int, str]] = []
        """Remarks on what is left out though its own program would have made something of it, or nothing at all."""
        self.mistakes: list[tuple[int, str]] = []
        self.said: list[tuple[int, str]] = []
        self._together = 0
        self._top: list[tuple[int, str]] = []
        self._equals: list[tuple[int, str]] = []

    def wrong(self, line: int, message: str) -> None:
        """Note a mistake; line 0 is the whole file."""
        self.mistakes.append((line, message))

    def together(self, line: int, count: int, what: str) -> bool:
        """Whether so many more lines hold for what one does; if they are too many in all, that is a mistake."""
        self._together += count
        if self._together > MOST_TOGETHER:
            self.wrong(line, f"{what}; more than {MOST_TOGETHER:,} pairs of them overlap: leave some out")
        return self._together <= MOST_TOGETHER

    def without(self, line: int, message: str) -> None:
        """Note what its own program goes on without: a mistake for who converts once, a remark for who runs by it."""
        if self.goes_on:
            text = f"{message}; left out, as ndppd goes on without it"
            self.say(line, text)
            self.lost.append((line, text))
        else:
            self.wrong(line, message)

    def say(self, line: int, message: str, at: list[str] | None = None, *, equal: bool = False) -> None:
        """Note a remark, which is also a comment where it belongs in the output, or on top.

        Remarks on what has no equivalent come first; `equal` says that this has one, or needs none.
        """
        self.said.append((line, message))
        if at is None:
            (self._equals if equal else self._top).append((line, message))
        else:
            at.append(self._remark(line, message))

    def remarks(self) -> tuple[str, ...]:
        """All remarks."""
        return self._remarks(self.said)

    def losses(self) -> tuple[str, ...]:
        """Those on what is left out."""
        return self._remarks(self.lost)

    def _remarks(self, said: list[tuple[int, str]]) -> tuple[str, ...]:
        return tuple(self._remark(line, message) for line, message in _in_order(said))

    def top(self) -> tuple[list[str], list[str]]:
        """The remarks that belong to no interface: those on what has no equivalent, and the others."""
        lost, rest = ([self._remark(*said) for said in _in_order(each)] for each in (self._top, self._equals))
        return lost, rest

    def error(self) -> ConfigError:
        """All mistakes."""
        mistakes = [Mistake("", message, line) for line, message in _in_order(self.mistakes)]
        return ConfigError(self.source, mistakes)

    def _remark(self, line: int, message: str) -> str:
        return f"{self.source}:{line}: {message}"


def _in_order(said: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """In the file's order."""
    return sorted(said, key=lambda entry: entry[0])


def plain(text: str) -> str:
    """Text that may stand in a comment, on one line, whatever it holds."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def quoted(text: str) -> str:
    """Text of the file in double quotes, short and plain."""
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return f'"{plain(short)}"'


def without_space(text: str) -> str:
    """Text as npd6 sees it."""
    return text.translate({ord(character): None for character in SPACE})


# --- Addresses and names ---


def address_of(text: str) -> IPv6Address | None:
    """An address without a scope id."""
    try:
        return None if "%" in text else IPv6Address(text)
    except ValueError:
        return None


def name_problem(name: str) -> str:
    """What is wrong with an interface's name (dev_valid_name in net/core/dev.c, which counts bytes); "" if nothing."""
    if not name or len(name.encode()) > 15:
        return f"an interface's name has 1 to 15 characters; found {quoted(name)}"
    if ":" in name:
        return f'an interface\'s name holds no ":"; write the interface that {quoted(name)} is an alias of'
    if not name.isprintable() or set(name) & set(" /\"';#{}") or name in {".", ".."}:
        return f"not an interface's name: {quoted(name)}"
    if set(name) & set("*?["):
        return f"{quoted(name)} would be a pattern for several interfaces in npd6-xdp; write the name of one"
    return ""
