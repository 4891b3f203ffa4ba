# SPDX-License-Identifier: GPL-2.0-or-later
"""No turn of the loop is long for a hostile configuration file, in processor time; questions are answered meanwhile."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from npd6_xdp.tools.files import MOST
from tests.bench.turns import PROGRAM, Turns
from tests.netns.hostile import HOSTILE, HUGE, MANY, RULE, SLY, put, text
from tests.netns.test_under_way import LONGEST, ROOT, for_python
from tests.netns.wire import LATE, Wire, configuration, says, until

Start = Callable[..., RunningDaemon]

TARGET = "2001:db8:1::42"
STAYS = "reload: the old configuration stays"


def by_client(running: RunningDaemon) -> None:
    """Have it read the file: a client of the control socket, who hears why that can't be."""
    with pytest.raises(MachineError, match="the old configuration stays"):
        ask(running.control, {"verb": "reload"})


def by_signal(running: RunningDaemon) -> None:
    """The same by SIGHUP."""
    before = running.log.count(STAYS)
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: running.log.count(STAYS) > before, LATE)


def written(content: Callable[[int], bytes], size: int) -> Callable[[Path], object]:
    """Writes a file, whose content is made then."""
    return lambda path: path.write_bytes(content(size))


@pytest.mark.sliced
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_no_turn_is_long_whatever_stands_in_the_files_place(
    topology: Topology, daemon: Start, full: bool, datapath: str
) -> None:
    """Each kind is read once by either datapath: by a signal by the one, by a client by the other."""
    kinds = {name: what for name, (what, _) in HOSTILE.items()}
    kinds |= {f"many mistakes: {kind}": text(f'[[interface]]\nname = "wan0"\n{lines}') for lines, kind, _ in MANY}
    kinds |= {name: text(toml) for name, toml in SLY.items()}
    for name, (content, is_quick) in HUGE.items():
        size = MOST if full or is_quick else MOST >> 6
        kinds[f"{name}, {size:,} bytes"] = written(content, size)
    file = topology.directory / "turns"
    turns = Turns(file)
    running = daemon(
        configuration(RULE, datapath=f'"{datapath}"', events_per_source="0"),
        program=(*PROGRAM, str(file)),
        environment={"PYTHONPATH": str(ROOT)},
    )
    seen: dict[str, float] = {}
    with Wire(topology) as wire:
        wire.only_advertisements()
        for number, (name, what) in enumerate(kinds.items()):
            read = by_signal if (number % 2 == 0) == (datapath == "python") else by_client
            put(running, what)
            turns.begin()
            reading = threading.Thread(target=read, args=(running,))
            reading.start()
            while reading.is_alive():
                assert wire.ask(for_python(TARGET), 3 * LATE) is not None, name
                reading.join(0.01)
            running.settle()
            seen[name] = turns.longest
    turns.close()
    print({name: f"{1000 * took:.0f} ms" for name, took in seen.items()})
    assert says(running, STAYS, len(kinds)), "each was read, and refused"
    assert {name: took for name, took in seen.items() if took >= LONGEST} == {}
