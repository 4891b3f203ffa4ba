# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration file, whatever stands in it: files, prefixes, selections and ranges drawn at random."""

from __future__ import annotations

import datetime
import re
import tomllib
from dataclasses import asdict, replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import (
    Attach,
    Config,
    DadPolicy,
    Datapath,
    InterfaceConfig,
    Limits,
    NaSource,
    RuleConfig,
    TcOrder,
    Vlan,
)
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.verdict import Method
from tests.core.configs import BOUNDS, ITS_RULE, TABLES, its_rule, listen, mistakes, rule

PREFIXES = (
    *("2001:db8:1::/64", "2001:db8:1:0::/64", "2001:DB8:1::/64", "2001:db8:2::1", "2001:db8::1-2001:db8::1"),
    *("2001:db8::1-2001:db8::2", "interface:lan0", "fe80::1", "fe80::/64", "ff02::/16", "::1", "2001:db8::1/64", "a"),
)
METHODS = ("static", "ignore", "kernel", "neighbour", "auto", "Static")


def toml(value: object) -> str:
    """A value in TOML, tables inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value) + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return repr(value)


def document(tables: dict[str, Any]) -> str:
    """A file: a line for each table."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items())


RULES = st.lists(
    st.sampled_from(
        (
            *(f'prefix = "{prefix}"\nmethod = "{method}"\n' for prefix in PREFIXES for method in METHODS),
            'method = "static"\nprefix = "2001:db8:1::/64"\n',
            'prefix = "2001:db8:1::/64"\nmethod = "static"\nrouter = false\n',
            'prefix = "2001:db8:1::/64"\nmethod = "static"\nhost_routes = false\n',
            'prefix = "2001:db8:2::/64"\nmethod = "route"\nvia = ["lan0"]\n',
            'prefix = "2001:db8:2::/64"\nmethod = "static"\nexclude = ["::1"]\n',
            'prefix = "2001:db8:2::/64"\nmethod = "neighbour"\nvia = ["lan0"]\n',
            'prefix = "2001:db8:2::/64"\n',
            'prefix = 1\nmethod = "static"\n',
            'prefix = "2001:db8:2::/64"\nmethod = ["static"]\n',
        )
    ),
    min_size=1,
    max_size=8,
)


def file(rules: list[str], name: str = "wan0") -> str:
    """A file of these rules."""
    return f'[[interface]]\nname = "{name}"\n' + "".join(f"[[interface.rule]]\n{each}" for each in rules)


def read(text: str, before: Config | None = None) -> Config | str:
    """The configuration, or its mistakes."""
    try:
        return parse(text, "x", before)
    except ConfigError as error:
        return str(error)


@given(RULES, RULES)
def test_a_file_means_the_same_whatever_stood_in_it_before(old: list[str], new: list[str]) -> None:
    before = read(file(old))
    if isinstance(before, Config):
        found = read(file(new), before)
        assert found == read(file(new))
        if isinstance(found, Config):
            had = {each.prefix: each for each in before.interfaces[0].rules}
            for each in found.interfaces[0].rules:
                if each == had.get(each.prefix) and each == RuleConfig(*each[:3]) and len(each.networks) == 1:
                    assert each is had[each.prefix] or each.method is Method.NEIGHBOUR


scalars = (
    st.sampled_from(
        (
            *("wan0", "wan*", "w[", "::/0", "2001:db8::1", "::2-::9", "interface:lan0", "static", "neighbour", "route"),
            *("ignore", "any", "100.7", "auto", "", "[::1]:1", "/run/x"),
        )
    )
    | st.text("0123456789abcdef:-/.%*?[]!", max_size=20)
    | st.text(max_size=20)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.dates()
    | st.times()
)


anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


keys = st.sampled_from(sorted(set().union(*TABLES.values())))


tables = st.dictionaries(keys | st.text(max_size=8), anything, max_size=6)


texts = st.lists(
    st.sampled_from(("::1", "::/64", "::2-::9", "2001:db8::/64", "wan0", "lan0", "lan*")) | scalars, max_size=3
)


targeted = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from(("::/0", "2001:db8::/32", "::2-::9", "interface:lan0", "::5")),
        "method": st.sampled_from(Method),
    },
    optional={
        "via": texts | anything,
        "include": texts | anything,
        "exclude": texts | anything,
        "host_routes": anything,
    },
)


nearly = st.fixed_dictionaries(
    {"name": scalars, "rule": st.lists(tables | targeted, max_size=3)}, optional={"vlan": anything, "router": anything}
)


documents = st.dictionaries(
    st.sampled_from(("daemon", "metrics", "limits", "interface")) | st.text(max_size=8),
    tables | st.lists(nearly | tables, max_size=3) | anything,
    max_size=5,
)


@settings(deadline=None)
@given(documents)
def test_no_tables_raise_anything_but_config_errors(tables: dict[str, Any]) -> None:
    text = document(tables)
    assert tomllib.loads(text).keys() == tables.keys()
    found = mistakes(text)
    assert all(len(str(mistake).splitlines()) == 1 for mistake in found)
    places = {mistake.where.partition(".")[0].partition("[")[0] for mistake in found}
    told = len(found) <= MOST_MISTAKES  # and not only counted
    assert not told or tables.keys() - {"daemon", "metrics", "limits", "interface"} <= places | {
        key for key in tables if not re.fullmatch(r"[\w-]+", key, re.ASCII)
    }


def value_of(network: IPv6Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def answerable(address: int, length: int) -> bool:
    """Whether a rule may have this prefix: A5, C2 and C3 of docs/rules.md, in numbers."""
    return not (
        (length >= 8 and address >> 120 == 0xFF)
        or (length >= 127 and address < 2)
        or (10 <= length < 128 and address >> 118 == 0xFE80 >> 6)
    )


@st.composite
def networks(draw: st.DrawFn) -> IPv6Network:
    """Prefixes without host bits, often those near the borders of what is answered."""
    length = draw(st.integers(0, 128) | st.sampled_from((8, 10, 64, 127, 128)))
    address = draw(st.integers(0, 2**128 - 1) | st.integers(0, 3) | st.integers(0xFE80 << 112, 0xFF02 << 112))
    return IPv6Network((address >> (128 - length) << (128 - length), length))


@settings(deadline=None)
@given(networks())
def test_a_prefix_is_taken_unless_nothing_of_it_is_ever_answered(network: IPv6Network) -> None:
    text = rule(prefix=f'"{network}"')
    assert (mistakes(text) == []) == answerable(*value_of(network))


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1) | st.integers(0, 3), st.integers(0, 127))
def test_what_is_proposed_for_host_bits_is_taken(address: int, length: int) -> None:
    found = mistakes(rule(prefix=f'"{IPv6Address(address)}/{length}"'))
    proposals = [
        part for mistake in found for part in re.findall(r"host bits set; write (\S+?)(?: or (\S+))?;", mistake.message)
    ]
    assert bool(proposals) == (address % 2 ** (128 - length) != 0 and answerable(address, length))
    for proposal in (spelled for pair in proposals for spelled in pair if spelled):
        assert mistakes(rule(prefix=f'"{proposal}"')) == []


@settings(deadline=None)
@given(st.text("[]:.0123459af%x", max_size=20) | st.ip_addresses().map(str))
def test_what_is_proposed_for_listen_is_taken(text: str) -> None:
    for mistake in mistakes(listen(f'"{text}"')):
        for proposal in re.findall(r'write (?:one such as )?"(.*?)"', mistake.message):
            assert mistakes(listen(f'"{proposal}"')) == []


LAST = 2**128 - 1


def as_spans(networks: tuple[Prefix, ...] | None) -> list[tuple[int, int]]:
    """Prefixes as the spans of numbers that they are, those that touch joined."""
    spans: list[tuple[int, int]] = []
    for network in networks or ():
        first, length = network
        last = first + 2 ** (128 - length) - 1
        if spans and spans[-1][1] + 1 == first:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


@st.composite
def spans(draw: st.DrawFn, low: int, high: int) -> tuple[int, int, str]:
    """The first and last number of an address, a prefix or a range within bounds, and how a file may spell it."""
    first = draw(st.integers(low, high))
    kind = draw(st.sampled_from(("address", "prefix", "range")))
    if kind == "address":
        return first, first, str(IPv6Address(first))
    if kind == "range":
        last = draw(st.integers(first, min(high, first + 300)) | st.integers(first, high))
        dash = draw(st.sampled_from(("-", " - ", "  -")))
        return first, last, f"{IPv6Address(first)}{dash}{IPv6Address(last)}"
    bits = draw(st.integers(0, (high - low + 1).bit_length() - 1))  # low is 0 or high + 1 a multiple of its size
    first = first >> bits << bits
    return first, first + 2**bits - 1, f"{IPv6Address(first)}/{128 - bits}"


@settings(deadline=None)
@given(st.data())
def test_what_is_selected_under_a_prefix_is_exactly_that(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 127) | st.sampled_from((0, 48, 64, 127)))
    size = 2 ** (128 - length)
    base = data.draw(st.integers(0, 2**length - 1)) * size
    suffix = data.draw(st.booleans())
    first, last, text = data.draw(spans(0, size - 1) if suffix else spans(base, base + size - 1))
    prefix = Prefix(base, length)
    found = mistakes(rule(f'exclude = ["{text}"]', prefix=f'"{prefix}"'))
    if not answerable(base, length):
        assert found
        return
    assert found == []
    (selection,) = its_rule(rule(f'exclude = ["{text}"]', prefix=f'"{prefix}"')).exclude
    assert (selection.text, int(selection.first), int(selection.last)) == (text, first, last)
    offset = base if suffix else 0
    assert as_spans(selection.within(prefix)) == [(first + offset, last + offset)]


@settings(deadline=None)
@given(st.data())
def test_a_selection_is_taken_if_it_lies_under_the_prefix_and_only_then(data: st.DataObject) -> None:
    length = data.draw(st.integers(8, 126))
    size = 2 ** (128 - length)
    base = 0x20010DB8 << 96 >> (128 - length) << (128 - length)
    near = st.integers(max(0, base - 3), base + 3) | st.integers(base + size - 3, min(LAST, base + size + 3))
    ends = data.draw(st.tuples(near, near) | st.tuples(st.integers(0, 2 * size), st.integers(0, 2 * size) | near))
    first, last = sorted(ends)
    text = f"{IPv6Address(first)}-{IPv6Address(last)}"
    inside = last < size or base <= first <= last < base + size
    found = mistakes(rule(f'exclude = ["{text}"]', prefix=f'"{IPv6Network((base, length))}"'))
    assert (found == []) == inside
    assert [mistake.where for mistake in found] == [f"{ITS_RULE}.exclude[0]"] * (not inside)


@settings(deadline=None)
@given(spans(2**125, 2**126 - 1))
def test_a_rules_prefix_is_exactly_the_targets_that_it_says(span: tuple[int, int, str]) -> None:
    first, last, text = span
    assert as_spans(its_rule(rule(prefix=f'"{text}"')).networks) == [(first, last)]


vlans = (
    st.just(Vlan())
    | st.just(Vlan(any=True))
    | st.lists(st.integers(1, 4094), min_size=1, max_size=2).map(lambda tags: Vlan(tags=tuple(tags)))
)


rules = st.lists(
    st.builds(
        lambda network, method: RuleConfig(str(network), (Prefix.of(network),), method),
        networks().filter(lambda network: answerable(*value_of(network))),
        st.sampled_from((Method.STATIC, Method.ROUTE, Method.KERNEL, Method.IGNORE)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: rule.networks,
).map(tuple)


interfaces = st.builds(
    InterfaceConfig,
    name=st.from_regex(r"[a-z0-9@_.-]{1,15}", fullmatch=True).filter(lambda name: name not in {".", ".."}),
    rules=rules,
    vlan=vlans,
    attach=st.sampled_from(Attach),
    tc_order=st.sampled_from(TcOrder),
    datapath=st.sampled_from(Datapath),
    router=st.booleans(),
    dad=st.sampled_from(DadPolicy),
    na_source=st.sampled_from(NaSource),
    events_per_source=st.none() | st.integers(0, 10_000_000),
    collect_targets=st.integers(0, 1_000_000),
    active_with=st.sampled_from(["", "192.0.2.1", "2001:db8::1", "fe80::1%lan0"]),
    new_targets_per_second=st.integers(0, 1_000_000),
)


def agreed(entries: list[InterfaceConfig]) -> tuple[InterfaceConfig, ...]:
    """The entries of one interface, all attached as its first, and last only where tc programs may be."""
    wishes = {
        entry.name: (entry.attach, entry.tc_order if entry.attach in (Attach.AUTO, Attach.TC) else TcOrder.FIRST)
        for entry in reversed(entries)
    }
    return tuple(replace(entry, attach=wishes[entry.name][0], tc_order=wishes[entry.name][1]) for entry in entries)


configs = st.builds(
    Config,
    interfaces=st.lists(interfaces, min_size=1, max_size=3, unique_by=lambda entry: (entry.name, entry.vlan)).map(
        agreed
    ),
    log_level=st.sampled_from(("debug", "info", "warning", "error")),
    log_format=st.sampled_from(("text", "json")),
    control=st.text(min_size=1, max_size=20).map("/x{}x".format).filter(lambda path: "\0" not in path),
    limits=st.builds(Limits, **{key: st.integers(low, high) for key, low, high in BOUNDS}),
    metrics_listen=st.lists(
        st.tuples(st.ip_addresses().map(str), st.integers(1, 65535)), max_size=3, unique_by=lambda each: each[1]
    ).map(tuple),
)


def endpoints(listen: tuple[tuple[str, int], ...]) -> str | list[str]:
    """As the file spells them."""
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in listen] or ""


@settings(deadline=None)
@given(configs)
def test_a_valid_configuration_says_what_it_was_written_to_say(config: Config) -> None:
    entries = [
        {
            "name": entry.name,
            "vlan": entry.vlan.tags[0] if len(entry.vlan.tags) == 1 else str(entry.vlan),
            "attach": entry.attach,
            "tc_order": entry.tc_order,
            "datapath": entry.datapath,
            "router": entry.router,
            "dad": entry.dad,
            "na_source": entry.na_source,
            "collect_targets": entry.collect_targets,
            "active_with": entry.active_with,
            "new_targets_per_second": entry.new_targets_per_second,
            **({} if entry.events_per_source is None else {"events_per_source": entry.events_per_source}),
            "rule": [{"prefix": rule.prefix, "method": rule.method} for rule in entry.rules],
        }
        for entry in config.interfaces
    ]
    text = document(
        {
            "daemon": {"log_level": config.log_level, "log_format": config.log_format, "control": config.control},
            "limits": asdict(config.limits),
            "metrics": {"listen": endpoints(config.metrics_listen)},
            "interface": entries,
        }
    )
    assert parse(text, "") == config
