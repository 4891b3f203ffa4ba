# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man pages and the shells' completions into a directory: python -m docs.manual OUTDIR

Commands, options and examples are those of the command line, keys and their defaults those of the configuration
(docs/keys.py). What is written here is the rest: tests hold it against the code. No library writes the pages: the one
that Debian 12 has for argparse (argparse-manpage 1.2.2) knows no sections of ours, and no examples.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import npd6_xdp
from docs import keys
from docs.markdown import roff
from npd6_xdp import ndppd
from npd6_xdp.arguments import CONFIG
from npd6_xdp.cli import argument_parser
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_keys import KEYS, header
from npd6_xdp.core.reasons import INVALID, REFUSED
from npd6_xdp.system import ended
from npd6_xdp.tools.init.write import SYSCTLS

EXIT_STATUS: Mapping[int, str] = {
    0: "Done. Of `run`: ended by a signal.",
    1: "Failed at run time: a missing privilege or interface, another XDP program, no daemon to ask, no answer to"
    " `probe`, nothing that `init` could write a configuration for, a reload that left the old configuration in use,"
    " something that `doctor` calls `fail`.",
    2: "The command line, or the configuration, can't be used, or something that npd6-xdp needs isn't installed: no"
    " restart mends that.",
    130: "Interrupted by Ctrl-C.",
}

SIGNALS: Mapping[str, str] = {
    "SIGTERM, SIGINT": "End: detach, answer what is under way, take back routes, proxy entries and sysctls; or leave"
    " these to a successor, where the service manager keeps descriptors (`FDSTORE`).",
    "SIGHUP": "Read the configuration again, as `npd6-xdp reload` has it done. The log says what became of it.",
    "SIGUSR1": "Write into the log what `npd6-xdp status` shows.",
}

ENVIRONMENT: Mapping[str, str] = {
    "JOURNAL_STREAM": "Where it names what stderr is, the journal is told how grave each line is (systemd.exec(5)).",
    "NOTIFY_SOCKET": "Where `run` tells the service manager how it is (sd_notify(3)).",
    "FDSTORE": "How many descriptors the service manager keeps beyond the end of `run`: where it is above 0, the XDP"
    " program goes on answering until a successor takes over.",
    "ENDED": "Where the service's unit has it written down when a process of its has ended.",
    "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES": "What a predecessor of `run` has left with the service manager.",
    "RUNTIME_DIRECTORY": "Where `run` counts the starts that didn't get ready; the service manager says it.",
    "WATCHDOG_USEC, WATCHDOG_PID": "The service manager's watchdog, which the main loop of `run` feeds.",
    "CACHE_DIRECTORY": "Where what was compiled is kept for the next start, instead of /var/cache/npd6-xdp; the service"
    " manager says it (systemd.exec(5)). `/dev/null` keeps nothing.",
    "NO_COLOR": "`doctor` and `trace` write without colours where it is set to anything.",
    "TERM": "`status --watch` writes plain lines, and `doctor` and `trace` no colours, where it is `dumb`.",
}

FILES: Mapping[str, str] = {
    str(CONFIG): "The configuration, where `--config` names no other. See npd6-xdp.toml(5).",
    str(SYSCTLS): "The sysctls that `init --apply` sets, for the next boot.",
    Config(
        ()
    ).control: "The control socket behind `status`, `reload`, `announce`, `trace` and `doctor`, for root and its group."
    " `daemon.control` says where it is.",
    "/run/npd6-xdp/interfaces": "Which interfaces which daemon has: a lock on a byte for each. It goes with"
    " the last of them.",
    "/run/npd6-xdp/sysctl-*": "What the sysctls that method `kernel` sets were before, so that the next start puts them"
    " back after a crash.",
    "/run/npd6-xdp/starts": "How many starts in a row didn't get ready. After three, what a process before them has"
    " left is taken away.",
    str(ended.SAID): "When the last process of the service has ended, and whether another was to come.",
    "/var/cache/npd6-xdp/": "What the compiler has made of the XDP program, so that the next start needs none. Empty it"
    " whenever you like.",
}

COMMAND_PAGE = """\
## NAME

npd6-xdp - IPv6 Neighbor Discovery proxy in the network driver

## SYNOPSIS

`npd6-xdp` *COMMAND* [*OPTION* ...]

## DESCRIPTION

{description}

A Neighbor Solicitation for a target that the configuration covers is checked as RFC 4861 has it, and answered by an XDP
program in the network driver, with this router's link-layer address. What the driver can't decide goes to the daemon.
All else is left to the kernel, untouched. The methods by which a target is taken to be there are in npd6-xdp.toml(5).

Needs Linux 5.18 or newer, and an Ethernet interface. The XDP program goes with the daemon, however that ends, or, as a
service, goes on answering until the next one takes over. Another XDP program on the interface is never replaced.

## COMMANDS

{commands}

## OPTIONS

{options}

## OUTCOMES

Every solicitation on an attached interface has exactly one. `status`, the status page and the metrics count them;
`trace`, `explain` and `replay` say why. `pending` counts what was sent for resolution, not what is being resolved.

{outcomes}

## REASONS

Why a solicitation is `invalid`, which is the first of these checks that fails:

{invalid}

Which limit has refused one that is `rate_limited`:

{refused}

## EXIT STATUS

{exit_status}

An error is one line on stderr that says what is wrong, where, and what to do about it.

## FILES

{files}

## SIGNALS

Of `npd6-xdp run`:

{signals}

## ENVIRONMENT

{environment}

## EXAMPLES

{examples}

## SEE ALSO

npd6-xdp.toml(5), npd6-xdp-ndppd(8), ip-neighbour(8), ip-link(8), ethtool(8), tcpdump(8), systemctl(1)

RFC 4861 (Neighbor Discovery), RFC 4862 (Duplicate Address Detection)
"""

NDPPD_PAGE = """\
## NAME

npd6-xdp-ndppd - npd6-xdp by the command line and the configuration of ndppd

## SYNOPSIS

`npd6-xdp-ndppd` [`-c` *FILE*] [`-d`] [`-p` *FILE*] [`-v` ...]

## DESCRIPTION

{description}

It is for systems that write an ndppd.conf themselves, and start ndppd with it: there only the program's path is to be
changed. Called by a link whose name is ndppd, such as `/usr/lib/npd6-xdp/ndppd`, its process has that name, too.

What ndppd goes on without, it goes on without as well, and warns: a rule whose address can't be read, an `iface` that
is the proxy's own. A file without any rule is answered by for nothing, until it has one. Interfaces that aren't there
are waited for, where ndppd ends. What ndppd refuses ends it with one line for each mistake. The rest of what is
different here `npd6-xdp convert` says of a file, too; after that, npd6-xdp.toml(5) has more to be set.

`npd6-xdp status` and `npd6-xdp reload` ask it as they do `npd6-xdp run`, and so does its status page. The capabilities
that it needs are CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW; ndppd needs but two of these, so a unit that has
a bounding set must have the others added.

## OPTIONS

{options}

Anything else on the command line is passed over, as ndppd has it, but said.

## EXIT STATUS

{exit_status}

## FILES

{files}

## SIGNALS

{signals}

## EXAMPLES

As the unit of a router has it:

    npd6-xdp-ndppd -d -p /run/ndppd/ndppd.pid -c /run/ndppd/ndppd.conf

## SEE ALSO

npd6-xdp(8), npd6-xdp.toml(5)
"""

CONFIGURATION_PAGE = """\
## NAME

npd6-xdp.toml - configuration of npd6-xdp(8)

## SYNOPSIS

`{config}`

## DESCRIPTION

A file in TOML 1.0. An unknown key, a bad value, or two rules for one prefix on one interface is an error, which names
its place. `npd6-xdp check` finds them all, and needs neither root nor the interfaces. `npd6-xdp reload` puts a changed
file to use: all of it, or nothing.

In TOML a key belongs to the header above it. So keys of an interface stand before its first `[[interface.rule]]`.
`[daemon]`, `[metrics]` and `[limits]` may be left out.

{tables}

## WHICH ENTRY MATCHES A FRAME

Each frame of a port has one `[[interface]]`, and is decided by that entry's rules alone. An exact name beats a glob,
then a given VLAN beats `"any"`; of two globs the first in the file has it. Tags with VID 0 count as none. An answer
carries the tags of its question.

## WHICH RULE DECIDES

The longest prefix that holds the target; the order in the file is of no account. A rule owns its prefix: what its
`include` doesn't name, or its `exclude` names, is ignored, and no wider rule gets it. With both, `exclude` wins. Each
is an address, a prefix or a range, in full, or as a suffix of the rule's prefix.

Whatever the rules say: the interface's own addresses are left to the kernel. Never answered are next hops of routes out
of the interface, multicast addresses, `::`, `::1`, and link-local addresses that no rule names exactly. An address that
this host holds on another interface is there, under every method that covers it but `ignore`.

## METHODS

{methods}

## DATAPATHS

{datapaths}

## EXAMPLES

{examples}

## FILES

{files}

## SEE ALSO

npd6-xdp(8)
"""

EXAMPLES: Mapping[str, str] = {
    "A prefix that is routed behind this router, but for a part of it:": """\
[[interface]]
name = "wan0"

[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "route"

[[interface.rule]]
prefix = "2001:db8:1:0:bad::/80"
method = "ignore"
""",
    "One /64 on both sides, for the hosts that are there:": """\
[[interface]]
name = "wan0"

[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "neighbour"
via = ["lan0"]
host_routes = true

[[interface]]
name = "lan0"

[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "neighbour"
via = ["wan0"]
""",
    "One address, on VLAN 100 of any port whose name begins with wan; metrics for all who reach this machine:": """\
[metrics]
listen = "[::]:9846"

[[interface]]
name = "wan*"
vlan = 100

[[interface.rule]]
prefix = "2001:db8:2::42"
method = "static"
""",
}

_OUTCOMES = re.compile(r"^\| outcome \|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
_SEE = re.compile(r":? see \[[^]]+\]\([^)]+\)")  # which leads nowhere in a man page

_SHELLS = {"bash": "bash-completion/npd6-xdp", "zsh": "zsh/_npd6-xdp", "fish": "fish/npd6-xdp.fish"}
_INTERFACES = """\
_npd6_xdp_interfaces() {
  compgen -W "$(command ls /sys/class/net 2>/dev/null)" -- "$1"
}
"""


def title(name: str, section: int) -> str:
    """The first lines of a man page."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    # No hyphens, and a ragged margin: long paths tear holes otherwise. HY and AD are for groff's macros that would undo
    # it: .EE and .SH, and as of 1.23 each paragraph.
    still = ".nr HY 0\n.ds AD l\n.hy 0\n.ad l\n"
    return f'.TH {name.upper()} {section} "{date}" "npd6-xdp {npd6_xdp.__version__}"\n{still}'


def command_page() -> str:
    """npd6-xdp(8)."""
    parser = argument_parser()
    text = COMMAND_PAGE.format(
        description=parser.description,
        commands="\n\n".join(_command(name, verb) for name, verb in verbs(parser).items()),
        options=_definitions(_options(parser)),
        outcomes=_definitions(outcomes()),
        invalid=_definitions((str(reason), _sentence(why)) for reason, why in INVALID.items()),
        refused=_definitions((str(limit), _sentence(why)) for limit, why in REFUSED.items()),
        exit_status=_definitions((str(status), text) for status, text in EXIT_STATUS.items()),
        files=_definitions(FILES.items()),
        signals=_definitions(SIGNALS.items()),
        environment=_definitions(ENVIRONMENT.items()),
        examples="\n\n".join(_examples(parser)),
    )
    return title("npd6-xdp", 8) + roff(text)


def ndppd_page() -> str:
    """npd6-xdp-ndppd(8)."""
    parser = ndppd.argument_parser()
    statuses = {0: "It answers (with `-d`), or was ended by a signal.", 1: "Failed at run time.", 2: EXIT_STATUS[2]}
    text = NDPPD_PAGE.format(
        description=parser.description,
        options=_definitions(_options(parser)),
        exit_status=_definitions((str(status), text) for status, text in statuses.items()),
        files=_definitions([(str(ndppd.CONFIG), "The configuration, where `-c` names no other.")]),
        signals=_definitions(SIGNALS.items()),
    )
    return title("npd6-xdp-ndppd", 8) + roff(text)


def configuration_page() -> str:
    """npd6-xdp.toml(5)."""
    text = CONFIGURATION_PAGE.format(
        config=CONFIG,
        tables="\n\n".join(_table(of) for of in KEYS),
        methods=_definitions((method, f"A target is there: {way.there}.") for method, way in keys.METHODS.items()),
        datapaths=_definitions((each, _sentence(does)) for each, does in keys.DATAPATHS.items()),
        examples="\n\n".join(f"{what}\n\n{_indented(file)}" for what, file in EXAMPLES.items()),
        files=_definitions([(str(CONFIG), FILES[str(CONFIG)].partition(" See ")[0])]),
    )
    return title("npd6-xdp.toml", 5) + roff(text)


def outcomes() -> Iterator[tuple[str, str]]:
    """Each outcome, with what has happened and what it says if there are many: the table of docs/operation.md."""
    text = (Path(__file__).parent / "operation.md").read_text()
    for name, happened, many in re.findall(
        r"^\| `(\w+)` \| (.+) \| (.+) \|$", _OUTCOMES.findall(text)[0], re.MULTILINE
    ):
        said = f"{_sentence(happened)} If there are many: {many}."
        yield name, _SEE.sub("", said)


# --- The command line ---


def verbs(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The commands' parsers by their names."""
    return _commands(parser).choices


def in_short(parser: argparse.ArgumentParser) -> Mapping[str, str]:
    """What the commands do, in a few words, by their names."""
    return {choice.dest: choice.help or "" for choice in _commands(parser)._choices_actions}


def _commands(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return found


def _command(name: str, verb: argparse.ArgumentParser) -> str:
    usage = " ".join(verb.format_usage().split()[1:]).replace("[-h] ", "").replace("[-h]", "")
    parts = [f"### {name}", re.sub(r"\b[A-Z]+\b", r"*\g<0>*", f"`{usage.strip()}`".replace("`", ""))]
    parts += [verb.description or "", _definitions(_options(verb))]
    return "\n\n".join(filter(None, parts))


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Arguments and options, each with its help; of the commands' own --help none."""
    for action in parser._actions:
        nested = isinstance(action, argparse._SubParsersAction)
        if nested or (isinstance(action, argparse._HelpAction) and " " in parser.prog):
            continue
        names = [f"`{name}`" for name in action.option_strings]
        value = f"*{action.metavar}*" if action.nargs != 0 else ""
        said = (action.help or "") % {**vars(action), "prog": parser.prog}
        said = re.sub(r"\(default: (\S+)\)", r"(default: `\1`)", said)
        yield f"{', '.join(names)} {value}".strip(), _sentence(said)


def _examples(parser: argparse.ArgumentParser) -> Iterator[str]:
    for name, does in in_short(parser).items():
        lines = (verbs(parser)[name].epilog or "").splitlines()[1:]
        yield f"{_sentence(does)[:-1]}:\n\n{_indented(chr(10).join(line.strip() for line in lines))}"


# --- The configuration ---


def _table(of: str) -> str:
    return f"## {header(of)}\n\n" + _definitions((name, _key(of, name, key)) for name, key in keys.keys(of))


def _key(of: str, name: str, key: keys.Key) -> str:
    default = keys.default(of, name)
    parts = [_sentence(key.does), f"Beyond it: {key.beyond}." if key.beyond else ""]
    parts.append(f"Value: {keys.values(of, name)}.")
    parts.append("Required." if default == "required" else f"Default: {default}.")
    return " ".join(filter(None, parts))


# --- Text ---


def _definitions(items: Iterable[tuple[str, str]]) -> str:
    return "\n\n".join(f"{_term(term)}\n: {text}" for term, text in items)


def _term(term: str) -> str:
    return term if re.search("[`* ]", term) else f"`{term}`"


def _sentence(text: str) -> str:
    """A fragment as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip("\n").splitlines())


# --- Completions ---


def completions() -> Iterator[tuple[str, str]]:
    """For each shell that shtab knows: where its file goes, and what is in it."""
    import shtab

    for shell in filter(_SHELLS.__contains__, shtab.SUPPORTED_SHELLS):
        parser = argument_parser()
        for name, does in in_short(parser).items():
            verbs(parser)[name].description = does  # the shells show its first line
        for part in (parser, *verbs(parser).values()):
            for action in part._actions:
                if action.metavar in ("FILE", "PATH"):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
                elif action.metavar == "IF":
                    action.complete = {  # type: ignore[attr-defined]
                        "bash": "_npd6_xdp_interfaces",
                        "zsh": "_net_interfaces",
                        "fish": "(__fish_print_interfaces)",
                    }
        text = shtab.complete(parser, shell, preamble={"bash": _INTERFACES})
        yield _SHELLS[shell], f"{_all_choices(text) if shell == 'bash' else text}\n"


def _all_choices(text: str) -> str:
    """Bash's completions with each array of choices as a string, a choice a line.

    Of an array, what shtab 1.5.5 (Debian 12) writes offers the first choice only; a string is right for all versions.
    """
    return re.sub(
        r"^(\w+_choices)=\('(.*)'\)$",
        lambda found: f"{found[1]}=$'" + found[2].replace("' '", r"\n") + "'",
        text,
        flags=re.MULTILINE,
    )


def main(directory: str) -> None:
    """Write all of it below a directory."""
    pages = [
        ("man8/npd6-xdp.8", command_page()),
        ("man8/npd6-xdp-ndppd.8", ndppd_page()),
        ("man5/npd6-xdp.toml.5", configuration_page()),
    ]
    for name, text in (*pages, *completions()):
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
