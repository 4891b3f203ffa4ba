# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-networkd, which may have the kernel proxy: what its files say of targets that rules cover."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from itertools import groupby
from pathlib import Path

from npd6_xdp.core.table import Decision, Match
from npd6_xdp.tools.doctor.edits import pattern
from npd6_xdp.tools.doctor.facts import Facts, NetworkdLine
from npd6_xdp.tools.doctor.finding import Finding, note

ADMINISTRATORS, _RUNTIME, _PACKAGES = (Path(f"{root}/systemd/network") for root in ("/etc", "/run", "/usr/lib"))
_ADDRESS, _SWITCH = "IPv6ProxyNDPAddress", "IPv6ProxyNDP"
_ON = ("yes", "y", "true", "t", "1", "on")


def read_networkd() -> list[NetworkdLine]:
    """The lines that have it proxy, of files that no directory before has by the same name (systemd.network(5))."""
    files: dict[Path, Path] = {}
    for directory in (ADMINISTRATORS, _RUNTIME, _PACKAGES):
        for glob in ("*.network", "*.network.d/*.conf"):
            with suppress(OSError):
                for file in directory.glob(glob):
                    files.setdefault(file.relative_to(directory), file)
    found = []
    for _, file in sorted(files.items()):
        with suppress(OSError):
            found += [
                NetworkdLine(file, key, value, line)
                for line in file.read_text(errors="replace").splitlines()
                for key, _, value in [tuple(word.strip() for word in line.partition("="))]
                if key == _ADDRESS or (key == _SWITCH and value.lower() in _ON)
            ]
    return found


def checks(facts: Facts) -> Iterator[Finding]:
    """A finding for each file."""
    needed = {_network(each.file) for each in facts.networkd if each.key == _ADDRESS and not _is_covered(facts, each)}
    odd = [
        each
        for each in facts.networkd
        if (_is_covered(facts, each) if each.key == _ADDRESS else _network(each.file) not in needed)
    ]
    for file, its in groupby(odd, lambda each: each.file):
        lines = list(its)
        said = ", ".join(each.written.strip() for each in lines)
        text = f"systemd-networkd has the kernel proxy where rules answer: {file}: {said}"
        if file.is_relative_to(_RUNTIME):
            yield note("others", f"{text}; take that out where it comes from (netplan, say)")
        else:
            yield note("others", text, *_without(file, lines), "networkctl reload")


def _without(file: Path, lines: Sequence[NetworkdLine]) -> Iterator[str]:
    """What leaves these lines out: of a package's file, in one of the administrator's that stands for it."""
    scripts = [rf"\|^{pattern(each.written)}$|d" for each in lines]
    script = " ".join(f"-e {shlex.quote(each)}" for each in scripts)
    if not file.is_relative_to(_PACKAGES):
        yield f"sed -i {script} {shlex.quote(str(file))}"
        return
    own = ADMINISTRATORS / file.relative_to(_PACKAGES)
    yield f"mkdir -p {shlex.quote(str(own.parent))}"
    yield f"sed {script} {shlex.quote(str(file))} > {shlex.quote(str(own))}"


def _network(file: Path) -> str:
    """The name of the .network file that a file is, or adds to."""
    return file.name if file.suffix == ".network" else file.parent.name.removesuffix(".d")


def _is_covered(facts: Facts, line: NetworkdLine) -> bool:
    try:
        address = IPv6Address(line.value)
    except AddressValueError:
        return False  # which networkd ignores, too
    found = (facts.table.lookup(entry.id, address) for entry in facts.table.entries.values())
    return any(isinstance(match, Match) and match.decision > Decision.IGNORE for match in found)
