# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6's expressions (exprlist), each evaluated for all addresses of a prefix at once: the set that it lists.

They are 64-bit C, but with only two levels of precedence: + and - bind least, the rest goes from left to right.
"""

from __future__ import annotations

import operator as op
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network

from npd6_xdp.core.config_words import Wrong
from npd6_xdp.tools.convert.common import quoted

# --- Sets of addresses: ascending (first, last) pairs of integers that don't overlap ---

Set = tuple[tuple[int, int], ...]


def span(network: IPv6Network) -> Set:
    """All addresses of a prefix."""
    return ((int(network.network_address), int(network.broadcast_address)),)


def union(pairs: Iterable[tuple[int, int]], *, adjoining: bool = False) -> Set:
    """Pairs in order, with those joined that overlap, or adjoin."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if joined and first <= joined[-1][1] + adjoining:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def minus(these: Set, those: Set) -> Set:
    """What is in the one and not in the other."""
    left: list[tuple[int, int]] = []
    at = 0
    for first, last in these:
        while at < len(those) and those[at][0] <= last:
            low, high = those[at]
            if first < low:
                left.append((first, low - 1))
            first = max(first, high + 1)
            if high > last:
                break  # it may reach into the next
            at += 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def both(these: Set, those: Set) -> Set:
    """What is in the one and in the other."""
    return minus(these, minus(these, those))


# --- Values and operators ---


@dataclass(frozen=True, slots=True)
class _Bits:
    """A part of the target: the address's bits of `mask`, moved to the right by `shift`."""

    mask: int
    shift: int


Value = int | _Bits | Set | None
"""A number; a part of the target; the addresses for which it is 1, not 0; or what none of these can say."""
_ALL_ONES = 2**64 - 1
_COMPARISONS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "=", "!=": "<>"}
"""Each with the ways of less, equal and greater for which it holds."""
_MIRROR = str.maketrans("<>", "><")
_ARITHMETIC: dict[str, Callable[[int, int], int]] = dict(
    zip(
        ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"),
        (op.add, op.sub, op.mul, op.floordiv, op.mod, op.and_, op.or_, op.xor, op.lshift, op.rshift),
        strict=True,
    )
)
_LEVELS = ({"+", "-"}, {"*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", *_COMPARISONS})
_TOKEN = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+|[A-Za-z$.][A-Za-z0-9$.]*|&&|\|\||[!=<>]=|<<|>>|.")


def _number(token: str) -> int:
    if token[:2] in {"0x", "0X"}:
        return int(token, 16)
    if token.startswith("0") and not re.fullmatch("[0-7]+", token):
        raise Wrong(f"{quoted(token)} is no octal number")
    return int(token, 8 if token.startswith("0") else 10)


def _holds(left: int, sign: str, right: int) -> bool:
    way = "<" if left < right else ">" if left > right else "="
    return way in _COMPARISONS[sign]


def _calculate(left: int, sign: str, right: int) -> int | None:
    """Two numbers, as C has it for unsigned 64 bits."""
    if sign in _COMPARISONS:
        return int(_holds(left, sign, right))
    if sign in {"<<", ">>"} and right > 63:
        return None  # C leaves it undefined
    return _ARITHMETIC[sign](left, right) & _ALL_ONES


class Expression:
    """One exprlist under a prefix; `names` are its variables, and are added to. Raises Wrong if it can't be read."""

    def __init__(self, text: str, names: dict[str, Value], network: IPv6Network) -> None:
        self._tokens = [*_TOKEN.findall(text), ""]
        self._names = names
        names.setdefault("PREFIX", _Bits(_ALL_ONES << 64, 64))
        names.setdefault("HOST", _Bits(_ALL_ONES, 0))
        self._all = span(network)

    def listed(self) -> Set | None:
        """The addresses for which its last statement isn't 0; None if they are no plain range or mask."""
        value: Value = 0
        while self._tokens != [""]:
            if not self._take(";"):
                value = self._chain()
                if self._tokens[0] not in {"", ";"}:
                    raise Wrong(f"unexpected {quoted(self._tokens[0])}")
        return self._truth(value)

    def _truth(self, value: Value) -> Set | None:
        """The addresses for which a value isn't 0."""
        if isinstance(value, _Bits):
            return self._compare(value, "!=", 0)
        return (self._all if value else ()) if isinstance(value, int) else value

    def _take(self, token: str) -> bool:
        if self._tokens[0] != token:
            return False
        self._tokens.pop(0)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise Wrong(f'"{token}" is missing before {quoted(self._tokens[0]) if self._tokens[0] else "the end"}')

    def _chain(self, level: int = 0) -> Value:
        """Operators of one level, with chains of the next, or a primary, between them."""
        if level == len(_LEVELS):
            return self._primary()
        left = self._chain(level + 1)
        while (sign := self._tokens[0]) in _LEVELS[level]:
            self._tokens.pop(0)
            left = self._apply(left, sign, self._chain(level + 1))
        return left

    def _primary(self) -> Value:
        word = self._tokens.pop(0) if self._tokens[0] else ""
        if word == "(":
            value = self._chain()
            self._expect(")")
            return value
        if word in {"+", "-", "~", "!"}:
            return self._sign(word, self._primary())
        if re.match("[0-9]", word):
            return min(_number(word), _ALL_ONES)  # as strtoull() has it
        if re.match("[A-Za-z$.]", word):
            if word.lower() in {"abs", "mask"}:
                return self._function(word.lower())
            if self._take("="):
                self._names[word] = self._chain()
            return self._names.get(word, 0)
        raise Wrong(f"a value is missing before {quoted(word) if word else 'the end'}")

    def _sign(self, sign: str, value: Value) -> Value:
        if sign == "!":
            true = self._truth(value)
            return None if true is None else minus(self._all, true)
        if sign == "+":
            return value
        if not isinstance(value, int):
            return None
        return (-value if sign == "-" else ~value) & _ALL_ONES

    def _function(self, name: str) -> Value:
        """abs(x), and mask(a, b): the bits from a to b."""
        self._expect("(")
        first = self._chain()
        second: Value = 0
        if name == "mask":
            self._expect(",")
            second = self._chain()
        self._expect(")")
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        if name == "abs":
            return -first & _ALL_ONES if first >> 63 else first
        low, high = sorted((min(first, 63), min(second, 63)))
        return ((1 << (high + 1)) - 1) & ~((1 << low) - 1)

    def _apply(self, left: Value, sign: str, right: Value) -> Value:
        if sign in {"/", "%"} and right == 0 and isinstance(right, int):
            raise Wrong("it divides by 0")
        if left is None or right is None:
            return None
        if sign in {"&&", "||"} or (sign in {"&", "|"} and isinstance(left, tuple) and isinstance(right, tuple)):
            these, those = self._truth(left), self._truth(right)
            if these is None or those is None:
                return None
            return both(these, those) if sign in {"&", "&&"} else union((*these, *those))
        if isinstance(left, int) and isinstance(right, int):
            return _calculate(left, sign, right)
        if sign in _COMPARISONS and isinstance(right, int):
            return self._compare(left, sign, right)
        if sign in _COMPARISONS and isinstance(left, int):
            return self._compare(right, sign.translate(_MIRROR), left)
        if sign == "&" and isinstance(left, int):
            left, right = right, left
        if isinstance(left, _Bits) and isinstance(right, int):
            if sign == "&":
                return _Bits(left.mask & (right << left.shift), left.shift)
            if sign == ">>" and right < 64:
                return _Bits(left.mask >> (left.shift + right) << (left.shift + right), left.shift + right)
        return None

    def _compare(self, left: Value, sign: str, number: int) -> Set | None:
        """The addresses for which the comparison holds; None if they are no range, or unknown."""
        if isinstance(left, tuple):
            true = left if _holds(1, sign, number) else ()
            return union((*true, *(minus(self._all, left) if _holds(0, sign, number) else ())))
        if not isinstance(left, _Bits):
            return None
        ((first, last),) = self._all
        open_bits = first ^ last  # ones, to the right
        mask = left.mask & open_bits
        step = (mask & -mask) or open_bits + 1
        if mask and mask + step != open_bits + 1:
            return None  # a bit above the mask is open: the range would come again and again

        def below(bound: int) -> int:
            """The first address whose part is `bound` or more; the part grows with the address."""
            low, high = 0, (last - first + 1) // step
            while low < high:
                middle = (low + high) // 2
                if ((first + middle * step) & left.mask) >> left.shift < bound:
                    low = middle + 1
                else:
                    high = middle
            return first + low * step

        less, greater = below(number), below(number + 1)
        ways = {"<": (first, less - 1), "=": (less, greater - 1), ">": (greater, last)}
        parts = (ways[way] for way in _COMPARISONS[sign])
        return union(((low, high) for low, high in parts if low <= high), adjoining=True)
