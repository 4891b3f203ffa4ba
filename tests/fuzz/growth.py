# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a parser's time grows faster than its input: the same piece again and again, and four times as often.

Time is this thread's on the processor. What is in proportion takes four times as long; what grows with the square
sixteen times. A machine that is busy stretches that time as well, twice and more, one and not the other: caches and the
other half of a core are somebody else's. It shortens none, so the shortest of several is what counts.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.targets import Target, targets

TIMES = 4
MOST_GROWTH = 9.0
_ENOUGH = 0.02  # seconds: what is shorter says nothing
_LARGEST = 1 << 20  # bytes
_ROUNDS = 3


@dataclass(frozen=True)
class Family:
    """Inputs of one kind: `head`, a number of `piece`s, `tail`. A "%d" in the piece is its number."""

    target: str
    name: str
    head: bytes = b""
    piece: bytes = b"a"
    tail: bytes = b""

    def of(self, count: int) -> bytes:
        """So many of it."""
        if b"%d" in self.piece:
            return self.head + b"".join(self.piece.replace(b"%d", b"%d" % n) for n in range(count)) + self.tail
        return self.head + self.piece * count + self.tail


_RULE = b'[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8::/32"\nmethod = "static"\n'
_SEARCH = _RULE.replace(b"static", b"neighbour")

FAMILIES = (
    Family("config", "one dotted key", piece=b"a.", tail=b"a = 1\n"),
    Family(
        "config",
        "a dotted key among dots in text",
        b'a = "1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18"\n',
        b"a.",
        b"a=1",
    ),
    Family("config", "a dotted header", b"[", b"a.", b"a]\n"),
    Family("config", "dotted keys in an inline table", b"x = {", b"a.", b"a = 1}\n"),
    Family("config", "quoted dotted keys", piece=b'"a" . ', tail=b"a = 1\n"),
    Family("config", "dots without keys", piece=b"."),
    Family("config", "many short dotted keys", piece=b"a.b.c%d = 1\n"),
    Family("config", "many deep headers", piece=b"[a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p%d]\n"),
    Family("config", "many deep keys", piece=b"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p%d=1\n"),
    Family("config", "lines of just so many dots", piece=b"# 1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18\n"),
    Family("config", "arrays within arrays", b"a = ", b"["),
    Family("config", "tables within tables", b"a = ", b"{a="),
    Family("config", "empty arrays", b"a = [", b"[],", b"]"),
    Family("config", "empty tables", b"a = [", b"{},", b"]"),
    Family("config", "one number", b"a = ", b"9"),
    Family("config", "one number with underscores", b"a = 1", b"_1"),
    Family("config", "one hexadecimal number", b"a = 0x", b"f"),
    Family("config", "one fraction", b"a = 1.", b"1"),
    Family("config", "one string", b'a = "', b"x", b'"'),
    Family("config", "a string of escapes", b'a = "', b"\\u00e9", b'"'),
    Family("config", "a long string of escapes", b'a = """', b"\\u00e9\n", b'"""'),
    Family("config", "a string that never ends", b'a = "', b"x"),
    Family("config", "long strings that never end", piece=b'"""x'),
    Family("config", "quotes", piece=b'a = "" "\n'),
    Family("config", "unknown keys", piece=b"colour%d = 1\n"),
    Family("config", "unknown tables", piece=b"[colour%d]\n"),
    Family("config", "a key said twice that is long", piece=b"a", tail=b" = 1\n"),
    Family("config", "a long key in words", b'[[a]]\n[a."', b"('x', ", b'"]\n'),
    Family(
        "config", "words that are nearly right", _RULE, b'[[interface.rule]]\nprefix = "%d::/64"\nmethod = "statik"\n'
    ),
    Family("config", "rules", _RULE, b'[[interface.rule]]\nprefix = "2001:db8::%d"\nmethod = "static"\n'),
    Family(
        "config", "rules for one prefix", _RULE, b'[[interface.rule]]\nprefix = "2001:db8::/48"\nmethod = "static"\n'
    ),
    Family("config", "interfaces", piece=_RULE.replace(b"wan0", b"wan%d")),
    Family("config", "interfaces of one name", piece=_RULE),
    Family("config", "interfaces without a rule", piece=b'[[interface]]\nname = "wan%d"\n'),
    Family("config", "ranges", _RULE + b"exclude = [", b'"::1-::ffff:%d",', b"]"),
    Family("config", "wrong ranges", _RULE + b"include = [", b'"::2-::1",', b"]"),
    Family("config", "one range", _RULE + b'include = ["', b"::1-", b'"]'),
    Family("config", "vias", _SEARCH + b"via = [", b'"lan%d",', b"]"),
    Family("config", "one via twice", _SEARCH + b"via = [", b'"lan0",', b"]"),
    Family("config", "a glob of brackets", _SEARCH + b'via = ["', b"[", b'"]'),
    Family("config", "a glob of classes", _SEARCH + b'via = ["', b"[ab]", b'"]'),
    Family("config", "a glob of stars", b'[[interface]]\nname = "', b"*a", b'"'),
    Family("config", "an address of colons", _SEARCH.replace(b"2001:db8::/32", b"%s"), b":"),
    Family("config", "a prefix of slashes", b'[[interface]]\nname = "a"\n[[interface.rule]]\nprefix = "', b"/1", b'"'),
    Family("config", "a path", b'[daemon]\ncontrol = "/', b"a/", b'"'),
    Family("config", "a place to listen", b'[metrics]\nlisten = "[', b"]:[", b'"'),
    Family("config", "a VLAN", b'[[interface]]\nname = "a"\nvlan = "', b"1.", b'"'),
    Family("config", "comments", piece=b"# x\n"),
    Family("config", "empty lines", piece=b"\r\n"),
    Family("npd6.conf", "pairs", piece=b"prefix=2001:db8:%d:\ninterface=eth0\n"),
    Family("npd6.conf", "the same pair", piece=b"prefix=2001:db8:1:\ninterface=eth0\n"),
    Family("npd6.conf", "interfaces", piece=b"prefix=2001:db8:1:\ninterface=eth%d\n"),
    Family(
        "npd6.conf",
        "addresses",
        b"prefix=2001:db8:1:2:\ninterface=eth0\nlisttype=black\n",
        b"addrlist=2001:db8:1:2::%d\n",
    ),
    Family(
        "npd6.conf", "pairs and a list", b"listtype=white\naddrlist=1::1\n", b"prefix=2001:db8:%d:\ninterface=eth0\n"
    ),
    Family("npd6.conf", "unknown keys", b"prefix=2001:db8:1:2:\ninterface=eth0\n", b"colour%d=1\n"),
    Family("npd6.conf", "wrong values", b"prefix=2001:db8:1:2:\n", b"maxHops=x\n"),
    Family("npd6.conf", "one value again and again", b"prefix=2001:db8:1:2:\ninterface=eth0\n", b"routerNA=true\n"),
    Family("npd6.conf", "comments that never end", piece=b"/*"),
    Family("npd6.conf", "one long line", b"prefix=", b"1:"),
    Family("ndppd.conf", "rules", b"proxy eth0 {\n", b"rule 2001:db8:%d::/64 { auto }\n", b"}\n"),
    Family("ndppd.conf", "the same rule", b"proxy eth0 {\n", b"rule 2001:db8:1::/64 { auto }\n", b"}\n"),
    Family(
        "ndppd.conf",
        "rules within many",
        b"proxy eth0 {\n",
        b"rule ::/0 { auto }\nrule 2001:db8:%d::/64 { static }\n",
        b"}\n",
    ),
    Family("ndppd.conf", "sections", piece=b"proxy eth%d { rule 2001:db8::/64 { static } }\n"),
    Family("ndppd.conf", "one interface's sections", piece=b"proxy eth0 { rule 2001:db8:%d::/64 { static } }\n"),
    Family("ndppd.conf", "blocks within blocks", b"proxy eth0 ", b"{ a "),
    Family("ndppd.conf", "braces that close", b"proxy eth0 ", b"}"),
    Family("ndppd.conf", "comments that never end", b"proxy eth0 {", b"/* "),
    Family("ndppd.conf", "short comments", b"proxy eth0 {", b"/**/"),
    Family("ndppd.conf", "strays", b"proxy eth0 {\n", b"$ \n", b"}"),
    Family("ndppd.conf", "quotes", b"proxy eth0 {\n", b'a "\n', b"}"),
    Family("ndppd.conf", "options", b"proxy eth0 { rule 1::/64 { static }\n", b"colour%d yes\n", b"}"),
    # An event is read alone or as one of a run. Of a frame, a message of at most 4,096 bytes is looked into (an
    # advertisement's has 32), so only what stands behind it can grow.
    Family("event", "a run of records", piece=targets()["event"].samples[1]),
    Family("solicitation", "what stands behind it", targets()["solicitation"].samples[0], b"\0"),
    Family("advertisement", "what stands behind it", targets()["advertisement"].samples[3], b"\0"),
    Family("web.yml", "users", b"basic_auth_users:\n", b"  u%d: $2y$10$" + b"O" * 53 + b"\n"),
    Family("web.yml", "one user again and again", b"basic_auth_users:\n", b"  u: $2y$10$" + b"O" * 53 + b"\n"),
    Family("web.yml", "headers", b"http_server_config:\n  headers:\n", b'    X-%d: "a"\n'),
    Family("web.yml", "ciphers", b"tls_server_config:\n  cipher_suites:\n", b"  - TLS_AES_%d\n"),
    Family("web.yml", "ciphers in one line", b"tls_server_config: {cipher_suites: [", b"a,", b"]}\n"),
    Family("web.yml", "unknown keys", piece=b"colour%d: 1\n"),
    Family("web.yml", "lists within lists", piece=b"[\n"),
    Family("web.yml", "dashes", piece=b"- "),
    Family("web.yml", "pairs", b"[", b"? ,", b"]"),
    Family("web.yml", "an alias again and again", b"[&a b", b",*a", b"]"),
    Family("web.yml", "one string of escapes", b'"', b"\\u00e9", b'"'),
    Family("web.yml", "empty lines in a text", b">\n", b"\n"),
    Family("web.yml", "comments", piece=b"# x\n"),
    Family("pcap", "frames", targets()["pcap"].samples[0], targets()["pcap"].samples[0][24:]),
    Family("pcapng", "blocks", targets()["pcapng"].samples[0], targets()["pcapng"].samples[0][28:]),
    Family("pcapng", "options", targets()["pcapng"].samples[0], b"\x63\0\0\0"),
    Family("control reply", "arrays", b"", b"["),
    Family("control reply", "white space", b"", b"  ", b'{"a": 1}'),
    Family("control", "arrays", b'{"verb": ', b"["),
    Family("control", "keys", b'{"verb": "status"', b', "a%d": 1', b"}\n"),
    Family("control", "questions", piece=b'{"verb": "status"}\n'),
    Family("http", "header lines", b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-%d: a\r\n", b"\r\n"),
    Family("http", "one header line", b"GET / HTTP/1.1\r\nHost: a\r\nAccept: ", b"text/plain;q=0.1,", b"\r\n\r\n"),
    Family("http", "a path", b"GET /", b"a/../", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    Family("http", "names that are asked for", b"GET /metrics?", b"name[]=%d&", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    Family("http", "escapes", b"GET /metrics?name[]=", b"%41", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    Family("http", "questions", piece=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
)


def slow(target: Target, of: Callable[[int], bytes], largest: int = _LARGEST, most: float = 4.0) -> str:
    """Why its time grows faster than the input; "" if it doesn't, as far as `largest` bytes or `most` seconds tell."""
    largest = min(largest, target.longest or largest)
    count = 64
    before = _least(target, of(count))
    while before < _ENOUGH and len(of(count * 2)) <= largest // TIMES:
        count *= 2
        before = _least(target, of(count))
    if before < _ENOUGH:
        return ""
    after = math.inf
    for _ in range(_ROUNDS):
        after = min(after, _cost(target, of(count * TIMES)))
        before = min(before, _cost(target, of(count)))
        growth = after / before
        if growth < MOST_GROWTH:
            return ""
        if after > most:
            break
    return f"{count * TIMES} pieces take {after:.2f} s, {growth:.1f} times as long as {count}"


def _least(target: Target, data: bytes) -> float:
    """The shortest of some times, where they are long enough to say anything."""
    found = _cost(target, data)
    for _ in range(_ROUNDS - 1):
        if found < _ENOUGH:
            break
        found = min(found, _cost(target, data))
    return found


def _cost(target: Target, data: bytes) -> float:
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time()
        target.check(data)
        return time.thread_time() - began
    finally:
        gc.enable()


def at_random(target: Target, rng: random.Random) -> tuple[Callable[[int], bytes], str]:
    """A family out of a target's samples and words, and what it is."""
    sample = rng.choice(target.samples)
    cut = rng.randrange(len(sample) + 1)
    size = rng.randrange(1, 24)
    pieces = [*target.words, sample[cut : cut + size] or b"x", bytes([rng.randrange(32, 127)])]
    piece = b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 4)))[:64]
    head, tail = rng.choice((b"", sample, sample[:cut])), rng.choice((b"", sample[cut:]))
    return lambda count: head + piece * count + tail, f"{head!r} + {piece!r} * n + {tail!r}"
