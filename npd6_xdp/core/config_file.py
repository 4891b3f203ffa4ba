# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration file's tables and keys: TOML text in; a Config out, or a ConfigError with each mistake."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeGuard

from npd6_xdp.core import config_parsers as parsers
from npd6_xdp.core import plain_toml
from npd6_xdp.core.config import (
    UNTAGGED,
    Attach,
    Config,
    InterfaceConfig,
    Limits,
    RuleConfig,
    TcOrder,
    Vlan,
    is_glob,
)
from npd6_xdp.core.config_keys import KEYS, KNOWN, REQUIRED, TABLES, ListOf, header, unknown
from npd6_xdp.core.config_parsers import LINK_LOCAL_ALONE, Targets, link_local
from npd6_xdp.core.config_words import (
    Float,
    Found,
    Twice,
    Wrong,
    deep_key,
    in_words,
    placed,
    quoted,
    syntax_mistake,
)
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError, Mistake
from npd6_xdp.core.plain_rules import PlainRules
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.toml_places import Path
from npd6_xdp.core.verdict import Method


def parse(text: str, source: str, before: Config | None = None) -> Config:
    """Read a configuration file's text; `source` is the file's name, for the errors. What a file has said `before` is
    read in less time: rules that are as plain as most are the very same objects where it had them.

    Raises ConfigError with the first mistakes found, in the file's order, each with where it is, and how many more
    there are. Keys, values and defaults are docs/configuration.md's. Takes time and memory in proportion to the text.
    """
    rules = PlainRules(before)
    document = plain_toml.read(text, plain_toml.Known("interface", "rule", rules.of_lines))
    reader = _Reader(rules)
    config = reader.config(_document(text, source) if document is None else document)
    if reader.mistakes:
        raise ConfigError(source, placed(reader.mistakes, text), reader.count)
    return config


def _document(text: str, source: str) -> dict[str, Any]:
    """A file in any TOML, or what is wrong with it."""
    if deep := deep_key(text):
        raise ConfigError(source, [deep])
    try:
        return tomllib.loads(text, parse_float=Float)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, [syntax_mistake(str(error), text)]) from None
    except (RecursionError, ValueError):  # tomllib lets both out; int() takes only so many digits
        raise ConfigError(source, [Mistake("", "a number is too long, or arrays nest too deeply")]) from None


_FEWEST = len(REQUIRED["interface.rule"])


def _written(entry: Any) -> Any:
    """A table of the file, where it is one of those that were known."""
    return {"prefix": entry.prefix, "method": str(entry.method)} if isinstance(entry, RuleConfig) else entry


def _instead(wrong: Wrong, value: object) -> str:
    return f"{wrong}; found {in_words(value)}"


class _Shared:
    """What the entries of one interface say of the program that they share: each may be written once, or alike."""

    KEYS = ("attach", "tc_order")

    def __init__(self, wrong: Callable[[Path, str | Twice], None]) -> None:
        self._wrong = wrong
        self._said: dict[tuple[str, str], tuple[Path, Attach | TcOrder]] = {}

    def note(self, interface: InterfaceConfig, where: Path, key: str) -> None:
        """An entry says a key."""
        value: Attach | TcOrder = getattr(interface, key)
        first, before = self._said.setdefault((interface.name, key), (where, value))
        if before is not value:
            behind = f" says {quoted(before)}; the entries of one interface share one program, so write it once, or"
            self._wrong(where, Twice(f"{quoted(value)}, but ", first, f"{behind} the same for all"))

    def check_orders(self) -> None:
        """Among tc programs stands only what may be one. Who writes the default as well means nothing by it."""
        for (name, key), (where, value) in self._said.items():
            _, attach = self._said.get((name, "attach"), ((), Attach.AUTO))
            if key == "tc_order" and value is TcOrder.LAST and attach in (Attach.NATIVE, Attach.GENERIC):
                self._wrong(
                    where,
                    f"an XDP program (attach = {quoted(attach)}) has no place among tc programs; leave tc_order out,"
                    f" or write attach = {quoted(Attach.TC)}",
                )


class _Firsts(dict[Prefix | str, Path | int]):
    """Where each prefix of an entry's rules stands first: the key's place, or the number of a plain rule, which is made
    a place only for a mistake: for 100,000 rules that takes a while.
    """

    def __init__(self, where: Path) -> None:
        super().__init__()
        self._where = where

    def of(self, network: Prefix | str, part: Path) -> Path:
        """The first place of one that stands at `part`, too."""
        first = self.setdefault(network, part)
        return (*self._where, first, "prefix") if isinstance(first, int) else first


# --- Tables: walked in the file's order ---


class _Reader:
    """Turns raw tables into values, counts the mistakes that it meets, and keeps the first of them."""

    def __init__(self, plain: PlainRules) -> None:
        self.mistakes: list[Found] = []
        self.count = 0
        self._plain = plain

    def wrong(self, where: Path, message: str | Twice | Callable[[], str]) -> None:
        """Note a mistake. A message that takes long to make is passed as a function, which is called only if it is
        shown.
        """
        self.count += 1
        if self.count <= MOST_MISTAKES:
            self.mistakes.append((where, message() if callable(message) else message))

    def config(self, document: dict[str, object]) -> Config:
        """The whole file."""
        values: dict[str, Any] = {}
        interfaces: tuple[InterfaceConfig, ...] = ()
        for table, raw in document.items():
            if table not in TABLES[""]:
                self.wrong((table,), partial(unknown, "", table))
            elif table == "interface":
                interfaces = self.interfaces(raw)
            elif not isinstance(raw, dict):
                self.wrong((table,), f"must be one table; write {header(table)}; found {in_words(raw)}")
            elif table == "limits":
                values["limits"] = Limits(**self.values(table, (table,), raw))
            else:
                prefix = "metrics_" if table == "metrics" else ""
                values |= {prefix + key: value for key, value in self.values(table, (table,), raw).items()}
                for one, other in parsers.heard_twice(values.get("metrics_listen", ())):
                    message = f"metrics.listen[{other}] listens there, too; leave one of them out"
                    self.wrong(("metrics", "listen", one), message)
        if document.get("interface", []) == []:
            self.wrong((), "no interface; write [[interface]] and its name, and [[interface.rule]] below it")
        return Config(interfaces, **values)

    def interfaces(self, raw: object) -> tuple[InterfaceConfig, ...]:
        """Every [[interface]]; one name and vlan may stand there once."""
        interfaces: list[InterfaceConfig] = []
        firsts: dict[tuple[str, Vlan], Path] = {}
        shared = _Shared(self.wrong)
        for where, entry in self.entries("interface", ("interface",), raw):
            values = self.values("interface", where, entry)
            # the `via` of a VLAN's rules may name the port: hosts on its untagged side are somewhere else
            port = None if values.get("vlan", UNTAGGED).tags else values.get("name")
            rules = self.rules((*where, "rule"), entry.get("rule", []), port)
            if entry.get("rule", []) == []:
                self.wrong(where, "no rule; write [[interface.rule]], its prefix and its method below it")
            if values.get("link_address") and any(rule.method is Method.KERNEL for rule in rules):
                self.wrong(
                    (*where, "link_address"),
                    f'method "{Method.KERNEL}" answers with the port\'s own MAC address; leave link_address out, or'
                    f' write method = "{Method.STATIC}"',
                )
            if "name" not in values or ("vlan" in entry and "vlan" not in values):
                continue
            interface = InterfaceConfig(rules=rules, **values)
            first = firsts.setdefault((interface.name, interface.vlan), where)
            if first != where:
                self.wrong(where, Twice("the same name and vlan as ", first, "; put all rules into one of the two"))
            for key in shared.KEYS:
                if key in entry:
                    shared.note(interface, (*where, key), key)
            interfaces.append(interface)
        shared.check_orders()
        return tuple(interfaces)

    def rules(self, where: Path, raw: object, port: str | None) -> tuple[RuleConfig, ...]:
        """Every [[interface.rule]] of one entry; a prefix may belong to one of them, however it is spelled."""
        rules: list[RuleConfig] = []
        firsts = _Firsts(where)
        for index, entry in enumerate(raw) if isinstance(raw, list) else ():
            rule = self.plain_rule(entry)
            if rule is not None and (network := rule.networks[0]) not in firsts:
                firsts[network] = index
            else:
                here, table = (*where, index), _written(entry)
                if self.is_table("interface.rule", here, table):
                    rule = self.rule(here, table, port, firsts)
            if rule is not None:
                rules.append(rule)
        if not isinstance(raw, list):
            found = [self.rule(*each, port, firsts) for each in self.entries("interface.rule", where, raw)]
            rules += [rule for rule in found if rule is not None]
        return tuple(rules)

    def rule(self, here: Path, entry: dict[str, object], port: str | None, firsts: _Firsts) -> RuleConfig | None:
        """One rule, of any keys; None if its prefix or its method is wrong."""
        values = self.values("interface.rule", here, entry)
        self.ways(here, entry, values, port)
        said: set[Path] = set()
        for network, part in self.flattened(here, values).items():
            first = firsts.of(network, part)
            if first != part and part not in said:
                said.add(part)  # two ranges may have hundreds in common
                behind = f", {network}; leave it out of one of the two"
                self.wrong(part, Twice("the same prefix as ", first, behind))
        if "prefix" not in values or "method" not in values:
            return None
        targets = values.pop("prefix")
        return RuleConfig(str(entry["prefix"]), targets.networks, follows=targets.follows, **values)

    def plain_rule(self, entry: object) -> RuleConfig | None:
        """A rule that is known by its lines, or has no keys but these two; None where it has more, or may be wrong."""
        if isinstance(entry, RuleConfig):
            return entry
        if type(entry) is not dict or len(entry) != _FEWEST:
            return None
        text, method = entry.get("prefix"), entry.get("method")
        return self._plain.of(text, method) if type(text) is str and type(method) is str else None

    def ways(self, here: Path, entry: dict[str, object], values: dict[str, Any], port: str | None) -> None:
        """The keys of a rule that only some methods take."""
        method = values.get("method")
        if len(entry) == len(REQUIRED["interface.rule"]) and method is not Method.NEIGHBOUR:
            return  # it has no others
        if method is Method.NEIGHBOUR and "via" not in entry:
            self.wrong(
                (*here, "via"),
                f'missing; method "{method}" needs the interfaces behind which targets live, such as via = ["lan0"]',
            )
        if "via" in entry and method not in {None, Method.ROUTE, Method.NEIGHBOUR}:
            self.wrong(
                (*here, "via"),
                f'method "{method}" takes no via; leave it out, or write method = "{Method.ROUTE}" or'
                f' "{Method.NEIGHBOUR}"',
            )
        if "host_routes" in entry and method not in {None, Method.NEIGHBOUR}:
            self.wrong(
                (*here, "host_routes"),
                f'method "{method}" takes no host_routes; leave it out, or write method = "{Method.NEIGHBOUR}"',
            )
        if "via" not in values:
            return
        firsts: dict[str, Path] = {}
        for index, name in enumerate(values["via"]):
            part = (*here, "via", index)
            first = firsts.setdefault(name, part)
            if first != part:
                self.wrong(part, Twice("the same interface as ", first, "; leave one of them out"))
            elif name == port and not is_glob(name):  # a glob leaves out where the question comes from
                self.wrong(part, f"{quoted(name)} is where the question comes from; name the other side's interface")

    def flattened(self, here: Path, values: dict[str, Any]) -> dict[Prefix | str, Path]:
        """The prefixes that a rule takes in the flat table, each with where it stands first: within one rule they may
        overlap as they like.
        """
        targets: Targets | None = values.get("prefix")
        if targets is None:
            return {}
        found = dict.fromkeys(targets.names, (*here, "prefix"))
        if "include" in values or "exclude" in values:
            for network, part in self.narrowed(here, targets, values):
                found.setdefault(network, part)
        return found

    def narrowed(self, here: Path, targets: Targets, values: dict[str, Any]) -> Iterator[tuple[Prefix, Path]]:
        """The prefixes of a rule's include and exclude, each with where it stands; one that it can't take is a
        mistake.
        """
        for key in ("include", "exclude"):
            if key in values and not targets.narrows:
                self.wrong((*here, key), f"an address or a range as prefix takes no {key}; leave it out")
            if targets.follows or not targets.narrows:
                continue  # what lies in the prefixes of an interface shows when they are known
            (network,) = targets.networks
            for index, selection in enumerate(values.get(key, ())):
                part = (*here, key, index)
                networks = selection.within(network)
                if networks is None:
                    self.wrong(
                        part,
                        f'does not lie in {network}; write a suffix such as "::1", or an address, prefix or range'
                        f" in it; found {in_words(selection.text)}",
                    )
                elif key == "include" and selection.first != selection.last and any(map(link_local, networks)):
                    self.wrong(part, f"{LINK_LOCAL_ALONE} of each; found {in_words(selection.text)}")
                else:
                    for one in networks:
                        yield one, part

    def entries(self, table: str, where: Path, raw: object) -> Iterator[tuple[Path, dict[str, object]]]:
        """The tables of an array of tables, each with where it is."""
        if isinstance(raw, dict):
            self.wrong(where, f"must be written {header(table)}, in double brackets, since there may be several")
            yield where, raw
            return
        for index, entry in enumerate(raw if isinstance(raw, list) else [raw]):
            here = (*where, index) if isinstance(raw, list) else where
            if self.is_table(table, here, entry):
                yield here, entry

    def is_table(self, table: str, here: Path, entry: object) -> TypeGuard[dict[str, object]]:
        """Whether one of an array of tables is one; else that is a mistake."""
        if not isinstance(entry, dict):
            self.wrong(here, f"must be a table; write {header(table)}; found {in_words(entry)}")
        return isinstance(entry, dict)

    def values(self, table: str, where: Path, raw: dict[str, object]) -> dict[str, Any]:
        """What the keys of one table say, without those that are wrong."""
        values: dict[str, Any] = {}
        parsers = KEYS[table]
        for key, value in raw.items():
            parser = parsers.get(key)
            if isinstance(parser, ListOf) and parser.alone and not isinstance(value, list):
                parser = parser.alone
            if parser is None:
                if key not in KNOWN[table]:
                    self.wrong((*where, key), partial(unknown, table, key))
            elif isinstance(parser, ListOf):
                if (items := self.array((*where, key), parser, value)) is not None:
                    values[key] = items
            else:
                # that is formatted only for a mistake: for 100,000 rules that takes a second
                try:
                    values[key] = parser(value)
                except Wrong as wrong:
                    self.wrong((*where, key), partial(_instead, wrong, value))
        for key, example in REQUIRED.get(table, {}).items():
            if key not in raw:
                self.wrong((*where, key), f"missing; write one such as {example}")
        return values

    def array(self, where: Path, kind: ListOf, raw: object) -> tuple[Any, ...] | None:
        """What an array's items say; None if one is wrong."""
        if not isinstance(raw, list) or not raw:
            self.wrong(where, f"must be an array of strings, such as {kind.example}; found {in_words(raw)}")
            return None
        if kind.most is not None and len(raw) > kind.most:
            self.wrong(where, f"must be an array of at most {kind.most:,} strings; found one of {len(raw):,}")
            return None
        items: list[Any] = []
        for index, item in enumerate(raw):
            try:
                items.append(kind.parser(item))
            except Wrong as wrong:
                self.wrong((*where, index), partial(_instead, wrong, item))
        return tuple(items) if len(items) == len(raw) else None
