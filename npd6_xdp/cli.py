# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one function a verb. Noun verbs only read; action verbs change something."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import npd6_xdp
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_parsers import parse_vlan
from npd6_xdp.core.errors import MachineError, Npd6Error, UsageError, is_want_of_room, remedy

if TYPE_CHECKING:
    from npd6_xdp.core.links import LinkFacts

DESCRIPTION = """\
An IPv6 Neighbor Discovery proxy: answers Neighbor Solicitations for the prefixes of its
configuration, in the network driver (XDP), so that hosts behind this router are reachable
from an upstream that believes them on its own link."""

EPILOG = "npd6-xdp COMMAND --help has a command's options, and an example."

CONFIG = Path("/etc/npd6-xdp/npd6-xdp.toml")
"""The configuration file, where --config doesn't name another."""

_LOG = logging.getLogger("npd6-xdp")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed at run time, 2 usage or configuration."""
    _open_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's character set lacks is escaped, and ends nothing
            stream.reconfigure(errors="backslashreplace")
    arguments = argument_parser().parse_args(argv)
    _set_up_logging("warning", "text", logging.StreamHandler(sys.stderr))
    try:
        return int(arguments.verb(arguments) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _give_up_output()  # the reader of our output has had enough
        return 1
    except Exception as error:
        found = _complaint(error)
        if found is None:
            raise
        text, exit_status = found
        print(text, file=sys.stderr)
        if isinstance(error, OSError):
            _give_up_output()
        return exit_status


def _complaint(error: Exception) -> tuple[str, int] | None:
    """What to say of an error, and the exit status; None if it is a mistake of ours."""
    match error:
        case Npd6Error():
            _LOG.debug("where it happened", exc_info=error)
            return _prefixed(error), error.exit_status
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] == "scapy":
            package = "install the distribution's package (Debian, Ubuntu, Fedora: python3-scapy)"
            text = f"npd6-xdp: scapy is missing, which this command needs: {package}"
            return text, MachineError.exit_status
        case OSError() if is_want_of_room(error.errno or 0):
            place = f"{error.filename}: " if error.filename else ""
            return f"npd6-xdp: {place}{remedy(error)}", MachineError.exit_status
    return None


def _open_standard_files() -> None:
    """Have file descriptors 0, 1 and 2 be open: whatever else got such a number would be written into."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free


def _give_up_output() -> None:
    """What is still buffered goes nowhere."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: argparse.Namespace) -> int:
    """`run`: the daemon, in the foreground."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # until the daemon notes them: it has yet to read its file
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, which is inherited, children can't be waited for
    from npd6_xdp import daemon
    from npd6_xdp.tools.log import LogThread

    config = _lasting(arguments.config)
    log = LogThread()
    _set_up_logging("warning", "text", log)
    try:
        daemon.run(
            lambda: _load(config),
            lambda config: _set_up_logging(config.log_level, config.log_format, log),
            str(config.absolute()),
            lambda: log.dropped,
        )
    except Exception as error:  # by the log's way: stderr itself may have nobody who reads it
        text, exit_status = _complaint(error) or (traceback.format_exc().rstrip(), 1)
        log.say(text)
        return exit_status
    finally:
        log.finish()
    return 0


def _lasting(path: Path) -> Path:
    """The path of a file to be read now and later, with a working directory that is there. Raises UsageError."""
    try:
        Path.cwd()
    except OSError as error:
        if not path.is_absolute():
            raise UsageError(f"--config {path}: the working directory is gone; name the file from / on") from error
        os.chdir("/")  # bcc, too, comes back to where it was
    return path


def check(arguments: argparse.Namespace) -> None:
    """`check`: validate a configuration file and print the table that results."""
    from npd6_xdp.core.absent import absent_remark
    from npd6_xdp.core.explain import table_json, table_text

    config = _load(arguments.config)
    config, links, warned = _machine(config)
    table = json.dumps(table_json(config, links), indent=2) if arguments.json else table_text(config, links)
    print(table, flush=True)
    if remark := absent_remark(config, links) if links else "":
        # no warning: the file may be another machine's, or the interfaces yet to come
        print(f"npd6-xdp: note: {remark}", file=sys.stderr)
    for line in warned:
        print(f"npd6-xdp: warning: {line}", file=sys.stderr)


def explain(arguments: argparse.Namespace) -> None:
    """`explain`: which rule decides about a target, and what advertisement would go out."""
    from npd6_xdp.core.explain import Question
    from npd6_xdp.core.explain import explain as tell
    from npd6_xdp.daemon import link_facts, sysctl

    config = _load(arguments.config)
    try:
        vlan = parse_vlan(arguments.vlan)
    except ValueError as error:
        raise UsageError(f"--vlan {arguments.vlan}: {error}") from error
    if vlan.any:
        raise UsageError("--vlan any: name one VLAN, or leave it out for untagged frames")
    links = link_facts(config)
    config, interface = _named(config, arguments.interface, links, arguments.config)
    question = Question(interface, vlan.tags, arguments.address, arguments.source)
    print(tell(config, links, question, sysctl))


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


def reload(arguments: argparse.Namespace) -> None:
    """`reload`: have the daemon read its configuration again."""
    from npd6_xdp.tools.control import ask

    found = ask(arguments.control, {"verb": "reload"})
    for line in found["warnings"]:
        print(f"npd6-xdp: warning: {line}", file=sys.stderr)
    rules = found["rules"]
    where = ", ".join(found["interfaces"]) or "no interface that is there yet"
    print(f"npd6-xdp: the new configuration is in use: {rules} rule{'' if rules == 1 else 's'} on {where}")


def convert(arguments: argparse.Namespace) -> int:
    """`convert`: npd6.conf or ndppd.conf in, TOML out."""
    from npd6_xdp.tools import convert as tool

    return tool.run(arguments.file)


def probe(arguments: argparse.Namespace) -> int:
    """`probe`: ask from the other side, as an upstream would."""
    from npd6_xdp.tools import probe as tool

    return tool.run(arguments.address, arguments.interface, arguments.count, as_json=arguments.json)


def replay(arguments: argparse.Namespace) -> None:
    """`replay`: what would become of the solicitations in a capture."""
    from npd6_xdp.daemon import link_facts
    from npd6_xdp.tools import replay as tool

    config = _load(arguments.config)
    interface = arguments.interface or _only_interface(config, arguments.config)
    links = link_facts(config)
    config, interface = _named(config, interface, links, arguments.config)
    tool.run(arguments.file, config, links, interface, arguments.mac, as_json=arguments.json)


def lab(_: argparse.Namespace) -> int:
    """`lab`: the demonstration in network namespaces."""
    from npd6_xdp.lab import story

    return story.run()


def version(_: argparse.Namespace) -> None:
    """`version`: the program's version."""
    print(f"npd6-xdp {npd6_xdp.__version__}")


def _machine(config: Config) -> tuple[Config, Mapping[str, LinkFacts], list[str]]:
    """The configuration with this machine's names of interfaces, what is known of these, and what to warn about."""
    from npd6_xdp.core.altnames import alternative_names, twofold, with_names
    from npd6_xdp.core.build import build
    from npd6_xdp.core.vias import used_vias, via_warnings
    from npd6_xdp.core.warnings import warnings
    from npd6_xdp.daemon import link_facts, sysctl

    try:
        links = link_facts(config)
    except (MachineError, OSError) as error:
        return config, {}, [str(error)]
    names = alternative_names(links)
    named = with_names(config, names)
    lines = warnings(build(named, links)) + via_warnings(used_vias(named, links), sysctl)
    return named, links, [*lines, *twofold(config, names)]


def _known(config: Config) -> str:
    return ", ".join(sorted({interface.name for interface in config.interfaces}))


def _named(config: Config, interface: str, links: Mapping[str, LinkFacts], path: Path) -> tuple[Config, str]:
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
    from npd6_xdp.tools.files import read_text

    if path == CONFIG and not os.path.lexists(path):
        raise UsageError(f"{path}: no such file; write it (see npd6-xdp.toml(5)), or name another one by --config")
    return parse(read_text(path), str(path))


def _prefixed(error: Npd6Error) -> str:
    from npd6_xdp.tools import journal

    said = "\n".join(f"npd6-xdp: {line}" for line in str(error).splitlines())
    return journal.prefixed(said, logging.ERROR) if journal.reads_stderr() else said


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _set_up_logging(level: str, style: str, handler: logging.Handler) -> None:
    from npd6_xdp.tools import journal

    formatter: logging.Formatter
    if style == "json":
        formatter = _JsonFormatter()
    else:
        formatter = logging.Formatter("npd6-xdp: %(levelname)s: %(message)s")
        logging.addLevelName(logging.INFO, "info")
        logging.addLevelName(logging.WARNING, "warning")
        logging.addLevelName(logging.ERROR, "error")
        logging.addLevelName(logging.DEBUG, "debug")
    handler.setFormatter(journal.JournalFormatter(formatter) if journal.reads_stderr() else formatter)
    _LOG.handlers[:] = [handler]
    _LOG.setLevel(level.upper())
    # Libraries speak through the root logger, and only when something is wrong.
    _LOG.propagate = False
    others = logging.getLogger()
    others.handlers[:] = [handler]
    others.setLevel(logging.WARNING)


def _ipv6_address(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv6 address") from error


def _mac(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a MAC address such as 02:00:00:00:00:02")
    return bytes.fromhex(text.replace(":", ""))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100000")
    return int(text)


def argument_parser() -> argparse.ArgumentParser:
    """The commands and their options, of which the manual and the completions are made, too."""
    parser = argparse.ArgumentParser(
        prog="npd6-xdp",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npd6-xdp {npd6_xdp.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, function: Any, help: str, description: str, *examples: str) -> argparse.ArgumentParser:
        title = "example" if len(examples) == 1 else "examples"
        verb = verbs.add_parser(
            name,
            help=help,
            description=textwrap.fill(description, 78),
            epilog="\n  ".join((f"{title}:", *(f"npd6-xdp {name} {rest}".rstrip() for rest in examples))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(verb=function)
        return verb

    def add_config(verb: argparse.ArgumentParser) -> None:
        verb.add_argument(
            "--config",
            default=CONFIG,
            type=Path,
            metavar="FILE",
            help="the TOML configuration file (default: %(default)s)",
        )

    verb = add(
        "run",
        run,
        "answer solicitations until told to stop",
        "The daemon, in the foreground. SIGTERM or SIGINT ends it, SIGHUP has it read its file again, SIGUSR1 has it "
        "log its state; whatever ends it, the kernel takes the XDP "
        "program off the interfaces. Logs to stderr. Needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and "
        "CAP_NET_RAW.",
        "",
        "--config npd6-xdp.toml",
    )
    add_config(verb)

    verb = add(
        "check",
        check,
        "validate a configuration file and print its table",
        "Validates a configuration file and prints the table that results. Needs neither root nor bcc nor the "
        "interfaces; which of them aren't on this machine it says, and where they are, it warns of rules over on-link "
        "prefixes. Exit status 2, with one line for each mistake, if the file can't be used.",
        "--config npd6-xdp.toml",
    )
    add_config(verb)
    verb.add_argument("--json", action="store_true", help="the table as JSON")

    verb = add(
        "explain",
        explain,
        "say which rule decides about an address",
        "Says which rule decides about a target, by which method, and what advertisement would go out. Takes the "
        "interface's MAC, own addresses and next hops into account where the interface is on this machine.",
        "2001:db8:1::42 --interface wan0",
        "2001:db8:1::42 --interface wan0 --vlan 100 --source ::",
    )
    verb.add_argument("address", metavar="ADDRESS", type=_ipv6_address, help="the target that is asked for")
    verb.add_argument("--interface", required=True, metavar="IF", help="the interface that the question comes in by")
    add_config(verb)
    verb.add_argument("--vlan", default="untagged", metavar="V", help='its VLAN: 100, or 100.7 (default: "untagged")')
    verb.add_argument(
        "--source",
        type=_ipv6_address,
        default=IPv6Address("fe80::1"),
        metavar="A",
        help="who asks; :: is a probe of Duplicate Address Detection (default: %(default)s)",
    )

    def add_control(verb: argparse.ArgumentParser) -> None:
        verb.add_argument(
            "--control",
            type=Path,
            default=Path(Config(()).control),
            metavar="PATH",
            help="the daemon's control socket, as daemon.control says it (default: %(default)s)",
        )

    verb = add(
        "status",
        status,
        "say what the daemon is doing",
        "Interfaces and how they are attached, rules and their counters, neighbours, targets being resolved, kernel "
        "proxy entries and recent targets of the running daemon. Needs root, or the control socket's group.",
        "",
        "--watch",
    )
    add_control(verb)
    verb.add_argument("--json", action="store_true", help="all of it as JSON; the text shows the first of long lists")
    verb.add_argument(
        "--watch",
        action="store_true",
        help="again each second, with rates and without addresses, until Ctrl-C; with --json an object a line",
    )

    verb = add(
        "reload",
        reload,
        "have the daemon read its configuration again",
        "Has the running daemon read its configuration file again, and says what became of it: all of the new one is "
        "in use, or the old one stays and the exit status is 1. The same as SIGHUP, but for the answer.",
        "",
    )
    add_control(verb)

    verb = add(
        "convert",
        convert,
        "turn an npd6.conf or ndppd.conf into a configuration",
        "Reads a configuration file of npd6 or ndppd and writes one for npd6-xdp. What has no equal is said on "
        "stderr, and stands as a comment in the output.",
        "/etc/ndppd.conf > npd6-xdp.toml",
    )
    verb.add_argument("file", metavar="FILE", type=Path, help="the file of npd6 or ndppd")

    verb = add(
        "probe",
        probe,
        "ask for an address, as an upstream would",
        "Sends Neighbor Solicitations out of an interface, decodes the advertisements that come back, and times "
        "them. For the upstream's side of the link. Exit status 1 if there was no answer. Needs root or CAP_NET_RAW.",
        "2001:db8:1::42 --interface eth0 --count 3",
    )
    verb.add_argument("address", metavar="ADDRESS", type=_ipv6_address, help="the target to ask for")
    verb.add_argument("--interface", required=True, metavar="IF", help="the interface to ask on")
    verb.add_argument("--count", type=_count, default=1, metavar="N", help="how many times to ask (default: 1)")
    verb.add_argument("--json", action="store_true", help="one JSON object")

    verb = add(
        "replay",
        replay,
        "say what would be answered to a capture",
        "Runs a capture (pcap or pcapng) through the XDP program and the Python path, and says what would become of "
        "each Neighbor Solicitation in it, and why; of a capture on all interfaces (any), of those that came in. Sends "
        "nothing, and attaches to nothing. Routes and neighbours are those of this machine; the limits of rates aren't "
        "applied. Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.",
        "capture.pcap --interface wan0",
        "- --interface wan0",
    )
    verb.add_argument(
        "file", metavar="FILE", type=Path, help="the capture, of an Ethernet interface or any; - is standard input"
    )
    add_config(verb)
    verb.add_argument(
        "--interface",
        metavar="IF",
        help="the interface of the configuration that it was captured on (default: the only one there is)",
    )
    verb.add_argument(
        "--mac",
        type=_mac,
        metavar="MAC",
        help="that interface's MAC address (default: what it has, if it is on this machine)",
    )
    verb.add_argument("--json", action="store_true", help="one JSON object")

    add(
        "lab",
        lab,
        "see it work, in network namespaces on this machine",
        "Builds an upstream, an edge and a host in network namespaces, runs the daemon on real traffic, shows what "
        "happens, and cleans up. Needs root.",
        "",
    )
    add("version", version, "print the version", "Prints the version.", "")
    return parser


if __name__ == "__main__":
    sys.exit(main())
