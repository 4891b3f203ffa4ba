# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands: a function a verb, below what it takes. Noun verbs only read; action verbs change something."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import npd6_xdp
from npd6_xdp.arguments import (
    CONFIG,
    CONFIG_FILE,
    CONTROL_SOCKET,
    count,
    ipv6_address,
    mac,
    one_of,
    option,
    runbook_address,
    verb,
)
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError, MachineError, UsageError

if TYPE_CHECKING:
    from npd6_xdp.core.links import LinkFacts
    from npd6_xdp.daemon.reading import Source


@verb(
    "answer solicitations until told to stop",
    "The daemon, in the foreground. SIGTERM or SIGINT ends it, SIGHUP has it read its file again, SIGUSR1 has it "
    "log its state; whatever ends it, the kernel takes the XDP "
    "program off the interfaces, unless a service manager keeps it there for the next daemon. Logs to stderr. An "
    "ndppd.conf is converted whenever it is read, and the log says what of it is different here. Needs "
    "root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW.",
    "",
    "--config npd6-xdp.toml",
    "--ndppd /etc/ndppd.conf",
    takes=(
        one_of(
            CONFIG_FILE,
            option("--ndppd", type=Path, metavar="FILE", help="instead of it: an ndppd.conf, converted at the start"),
        ),
    ),
)
def run(arguments: argparse.Namespace) -> int:
    """`run`: the daemon, in the foreground."""
    from npd6_xdp import foreground

    if arguments.ndppd is not None:
        return foreground.run(arguments.ndppd, "--ndppd", ndppd_file)
    return foreground.run(arguments.config, "--config", toml_file)


def toml_file(path: Path) -> Source:
    """What a configuration file of ours is read by."""
    from npd6_xdp.daemon.reading import TomlFile
    from npd6_xdp.tools.web_file import read_web

    return TomlFile(lambda: config_text(path), str(path), read_web)


def ndppd_file(path: Path) -> Source:
    """What an ndppd.conf is read by."""
    from npd6_xdp.tools.convert.source import NdppdFile

    return NdppdFile(path)


@verb(
    "validate a configuration file and print its table",
    "Validates a configuration file and prints the table that results. Needs neither root nor bcc nor the "
    "interfaces; which of them aren't on this machine it says, and where they are, it warns of rules over on-link "
    "prefixes. Exit status 2, with one line for each mistake, if the file can't be used.",
    "--config npd6-xdp.toml",
    takes=(
        CONFIG_FILE,
        option("--json", action="store_true", help="the table as JSON, or the mistakes"),
    ),
)
def check(arguments: argparse.Namespace) -> None:
    """`check`: validate a configuration file and print the table that results."""
    from npd6_xdp.core.absent import absent_remark
    from npd6_xdp.core.explain import table_json, table_text
    from npd6_xdp.tools.facts import roles_held
    from npd6_xdp.tools.web_file import look

    try:
        config = _load(arguments.config)
        of_web = look(config)
    except ConfigError as error:
        if arguments.json:
            print(json.dumps({"mistakes": error.fields()}, indent=2), flush=True)
        raise
    config, links, warned = _machine(config)
    held = roles_held(config) if links else frozenset()
    table = json.dumps(table_json(config, links, held), indent=2) if arguments.json else table_text(config, links, held)
    print(table, flush=True)
    if remark := absent_remark(config, links) if links else "":
        # no warning: the file may be another machine's, or the interfaces yet to come
        print(f"npd6-xdp: note: {remark}", file=sys.stderr)
    for line in (*warned, *of_web):
        print(f"npd6-xdp: warning: {line}", file=sys.stderr)


@verb(
    "say what the daemon is doing",
    "Interfaces and how they are attached, rules and their counters, neighbours, targets being resolved, kernel "
    "proxy entries and recent targets of the running daemon. Needs root, or the control socket's group.",
    "",
    "--watch",
    takes=(
        CONTROL_SOCKET,
        option("--json", action="store_true", help="all of it as JSON; the text shows the first of long lists"),
        option(
            "--watch",
            action="store_true",
            help="again each second, with rates and without addresses, until Ctrl-C; with --json an object a line",
        ),
    ),
)
def status(arguments: argparse.Namespace) -> int:
    """`status`: what the daemon is doing."""
    from npd6_xdp.core.status import status_text
    from npd6_xdp.tools import watch
    from npd6_xdp.tools.control import ask

    if arguments.watch:
        return watch.run(arguments.control, as_json=arguments.json)
    found = ask(arguments.control, {"verb": "status"})
    print(json.dumps(found, indent=2) if arguments.json else status_text(found), flush=True)
    return 0


@verb(
    "have the daemon read its configuration again",
    "Has the running daemon read its configuration file again, and says what became of it: all of the new one is "
    "in use, or the old one stays and the exit status is 1. The same as SIGHUP, but for the answer. With --json it is "
    "one object: whether the new one was applied, and what has changed, or the mistakes, each with its line and column "
    "as check --json has them.",
    "",
    "--json",
    takes=(
        CONTROL_SOCKET,
        option("--json", action="store_true", help="one JSON object: what has changed, or the mistakes"),
    ),
)
def reload(arguments: argparse.Namespace) -> None:
    """`reload`: have the daemon read its configuration again."""
    from npd6_xdp.tools.control import Declined, ask

    try:
        found = ask(arguments.control, {"verb": "reload"})
    except MachineError as error:
        if arguments.json:
            answer = error.answer if isinstance(error, Declined) else {"error": str(error)}
            print(json.dumps({"applied": False, "mistakes": [], **answer}, indent=2), flush=True)
        raise
    for line in found["warnings"]:
        print(f"npd6-xdp: warning: {line}", file=sys.stderr)
    rules, where = found["rules"], ", ".join(found["interfaces"])
    if arguments.json:
        print(json.dumps({"applied": True, **found}, indent=2), flush=True)
    elif where:
        print(f"npd6-xdp: the new configuration is in use: {rules} rule{'' if rules == 1 else 's'} on {where}")
    else:
        print("npd6-xdp: the new configuration is in use, but no configured interface exists")


@verb(
    "take away what a daemon that was killed has left",
    "Takes away the host routes and the kernel's proxy entries that a daemon has added which has ended without taking "
    "them back, and gives sysctls their values from before. The next start would do the same, but for what it needs "
    "itself. Where another daemon runs in this network namespace, routes and entries are left to it.",
    "",
)
def clean(_: argparse.Namespace) -> None:
    """`clean`: take away what a daemon that was killed has left."""
    from npd6_xdp.daemon.clean import clean as take_away

    done = take_away()
    taken = f"host routes {done.routes}, proxy entries {done.proxy_entries}"
    ended = f"; ended: multicast routers {done.routers}" if done.routers else ""
    print(f"npd6-xdp: taken away: {taken}; put back: sysctls {done.sysctls}{ended}")
    if done.others:
        pids = ", ".join(map(str, done.others))
        print(f"npd6-xdp: note: host routes and proxy entries are left to another daemon (pid {pids})", file=sys.stderr)


@verb(
    "tell the upstream whose its targets are now",
    "Has the running daemon send unsolicited advertisements for these targets, or for all that it remembers (of "
    "interfaces with active_with or new_targets_per_second): up to three times, at limits.announcements_per_second. "
    "Only what the rules answer now is announced, and nothing on standby. Exit status 1 if there is nothing to do.",
    "",
    "2001:db8:1::42 --interface wan0",
    takes=(
        option("targets", metavar="TARGET", nargs="*", type=ipv6_address, help="the targets (default: all remembered)"),
        option("--interface", metavar="IF", help="on this interface only, or on this VLAN of it (wan0:100)"),
        CONTROL_SOCKET,
    ),
)
def announce(arguments: argparse.Namespace) -> int:
    """`announce`: have the daemon send unsolicited advertisements."""
    from npd6_xdp.tools import announce as tool

    return tool.run(arguments.control, arguments.targets, arguments.interface)


@verb(
    "turn an npd6.conf or ndppd.conf into a configuration",
    "Reads a configuration file of npd6 or ndppd and writes one for npd6-xdp. What has no equal is said on "
    "stderr, and stands as a comment in the output.",
    "/etc/ndppd.conf > npd6-xdp.toml",
    takes=(option("file", metavar="FILE", type=Path, help="the file of npd6 or ndppd"),),
)
def convert(arguments: argparse.Namespace) -> int:
    """`convert`: npd6.conf or ndppd.conf in, TOML out."""
    from npd6_xdp.tools import convert as tool

    return tool.run(arguments.file)


@verb(
    "ask for an address, as an upstream would",
    "Sends Neighbor Solicitations out of an interface, decodes the advertisements that come back, and times "
    "them. For the upstream's side of the link. Exit status 1 if there was no answer. Needs root or CAP_NET_RAW.",
    "2001:db8:1::42 --interface eth0 --count 3",
    takes=(
        option("address", metavar="ADDRESS", type=ipv6_address, help="the target to ask for"),
        option("--interface", required=True, metavar="IF", help="the interface to ask on"),
        option("--count", type=count, default=1, metavar="N", help="how many times to ask (default: 1)"),
        option("--json", action="store_true", help="one JSON object"),
    ),
)
def probe(arguments: argparse.Namespace) -> int:
    """`probe`: ask from the other side, as an upstream would."""
    from npd6_xdp.tools import probe as tool

    return tool.run(arguments.address, arguments.interface, arguments.count, as_json=arguments.json)


@verb(
    "say what would be answered to a capture",
    "Runs a capture (pcap or pcapng) through the XDP program and the Python path, and says what would become of "
    "each Neighbor Solicitation in it, and why; of a capture on all interfaces (any), of those that came in. Sends "
    "nothing, and attaches to nothing. Routes and neighbours are those of this machine; the limits of rates aren't "
    "applied. Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.",
    "capture.pcap --interface wan0",
    "- --interface wan0",
    takes=(
        option(
            "file", metavar="FILE", type=Path, help="the capture, of an Ethernet interface or any; - is standard input"
        ),
        CONFIG_FILE,
        option(
            "--interface",
            metavar="IF",
            help="the interface of the configuration that it was captured on (default: the only one there is)",
        ),
        option(
            "--mac",
            type=mac,
            metavar="MAC",
            help="that interface's MAC address (default: what it has, if it is on this machine)",
        ),
        option("--json", action="store_true", help="one JSON object"),
    ),
)
def replay(arguments: argparse.Namespace) -> None:
    """`replay`: what would become of the solicitations in a capture."""
    from npd6_xdp.tools import replay as tool
    from npd6_xdp.tools.facts import link_facts, roles_held

    config = _load(arguments.config)
    interface = arguments.interface or _only_interface(config, arguments.config)
    links = link_facts(config)
    config, interface = named_here(config, interface, links, arguments.config)
    held = roles_held(config)
    tool.run(arguments.file, config, links, interface, arguments.mac, held, as_json=arguments.json)


@verb(
    "print the alerting rules for Prometheus",
    "Prints the recording and alerting rules for Prometheus. With the address at which you serve docs/alerts.md, each "
    "alert links to its paragraph there (the annotation runbook_url); without, it names the file of the package.",
    "--runbooks https://wiki.example/npd6-xdp/alerts > npd6-xdp.rules.yml",
    takes=(
        option(
            "--runbooks",
            type=runbook_address,
            metavar="URL",
            help="where docs/alerts.md is served, from http:// or https:// on",
        ),
    ),
)
def alerts(arguments: argparse.Namespace) -> None:
    """`alerts`: the rules for Prometheus."""
    from npd6_xdp.tools.alerts import rules_text

    print(rules_text(arguments.runbooks), end="", flush=True)


@verb(
    "print the version",
    "Prints the version.",
    "",
)
def version(_: argparse.Namespace) -> None:
    """`version`: the program's version."""
    print(f"npd6-xdp {npd6_xdp.__version__}")


def _machine(config: Config) -> tuple[Config, Mapping[str, LinkFacts], list[str]]:
    """The configuration with this machine's names of interfaces, what is known of these, and what to warn about."""
    from npd6_xdp.core.altnames import alternative_names, duplicates, with_names
    from npd6_xdp.core.build import build
    from npd6_xdp.core.vias import used_vias, via_warnings
    from npd6_xdp.core.warnings import warnings
    from npd6_xdp.tools.facts import link_facts, sysctl, vlan_filters

    try:
        links = link_facts(config)
    except (MachineError, OSError) as error:
        return config, {}, [str(error)]
    names = alternative_names(links)
    named = with_names(config, names)
    table = build(named, links)
    kept_back = [found.line for found in vlan_filters(table, links).values()]
    lines = warnings(table) + via_warnings(used_vias(named, links), sysctl) + kept_back
    return named, links, [*lines, *duplicates(config, names)]


def _known(config: Config) -> str:
    return ", ".join(sorted({interface.name for interface in config.interfaces}))


def named_here(config: Config, interface: str, links: Mapping[str, LinkFacts], path: Path) -> tuple[Config, str]:
    """A configuration and the interface that is asked for in it, by the names of this machine's interfaces."""
    from npd6_xdp.core.altnames import alternative_names, with_names
    from npd6_xdp.core.names import canonical

    names, name = alternative_names(links), canonical(interface)
    named = with_names(config, names)
    if not named.entries(names.get(name, name)):
        raise UsageError(f"--interface {name}: {path} has no such interface; it has {_known(config)}")
    return named, names.get(name, name)


def _only_interface(config: Config, path: Path) -> str:
    names = {interface.name for interface in config.interfaces}
    if len(names) != 1 or any(interface.is_glob for interface in config.interfaces):
        raise UsageError(f"--interface: name the one that this was captured on; {path} has {_known(config)}")
    return names.pop()


def _load(path: Path) -> Config:
    return parse(config_text(path), str(path))


def config_text(path: Path) -> str:
    """The text of a configuration file. Raises UsageError where the usual one isn't there, and ConfigError."""
    from npd6_xdp.tools.files import read_text

    if path == CONFIG and not os.path.lexists(path):
        raise UsageError(f"{path}: no such file; npd6-xdp init writes a first one, or name another by --config")
    return read_text(path)
