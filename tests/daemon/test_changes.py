# SPDX-License-Identifier: GPL-2.0-or-later
"""The way from what is in force to what is to be: what comes between its verbs, and what is left where one fails."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.judgement import WORKING
from npd6_xdp.core.link_messages import LinkFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon import garbage
from npd6_xdp.daemon.changes import Changes
from npd6_xdp.daemon.control import Control
from npd6_xdp.daemon.exposition import Exposition
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import NextLook
from npd6_xdp.daemon.reloads import Reloads
from npd6_xdp.daemon.turns import Turns
from tests.core.tables import facts

TEXT = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'


class Machine:
    """Links that are as a test says."""

    def __init__(self) -> None:
        self.links: Mapping[str, LinkFacts] = facts()
        self.addresses: set[str] = set()

    def take_in(self, change: Change) -> None:
        """Nothing was announced."""

    def meant(self, _: Config) -> Mapping[str, str]:
        return {}

    def watch(self, _: Config, change: Change) -> Steps[None]:
        yield

    def held(self, config: Config) -> frozenset[str]:
        return config.role_addresses & self.addresses

    def facts(self, _: Config) -> Steps[Mapping[str, LinkFacts]]:
        return self.links
        yield


class Room(Follower):
    """Says which verb has come; and does what a test wants there."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.goes_by = self.came_from = NOTHING
        self.does: dict[str, Callable[[], object]] = {}

    @property
    def on_standby(self) -> bool:
        """Whether the entry with a role is, by what this room goes by."""
        (found,) = {entry.standby for entry in self.goes_by.table.entries.values() if entry.active_with}
        return found

    def _come(self, verb: str) -> None:
        self.verbs.append(verb)
        self.does.get(verb, lambda: None)()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        self._come("prepare")
        yield

    def apply(self, new: InForce) -> None:
        self._come("apply")
        self.goes_by = new

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        self.came_from = old
        self._come("settle" if old is not new else "settle anew")
        yield


class Committing(Room):
    """Notes how far the first of the others is when this one applies."""

    commits = True

    def __init__(self) -> None:
        super().__init__()
        self.others: Room | None = None
        self.came_after: list[str] = []

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        change.undo.callback(self._come, "undo")
        yield from super().prepare(new, change)

    def apply(self, new: InForce) -> None:
        if self.others is not None:
            self.came_after = self.others.verbs[-1:]
        super().apply(new)


class Scene:
    """The path of a change through the daemon, with a few rooms only."""

    def __init__(self, *rooms: Follower) -> None:
        self.machine, self.look, self.room, self.last = Machine(), NextLook(), Room(), Room()
        turns = Turns(lambda: False)
        machine: Any = self.machine
        self.changes = Changes(machine, self.look, turns, nullcontext(), [self.room, *rooms, self.last])
        self.written = parse(TEXT, "test")
        self.changes.begin(InForce(self.written, self.written, {}, NOTHING.table))
        self.forget()

    def forget(self) -> None:
        """What has come so far."""
        self.room.verbs.clear()
        self.last.verbs.clear()


def refuse() -> None:
    raise MachineError("not now")


@pytest.mark.parametrize("reload", [False, True], ids=["a change of the machine", "a reload"])
def test_nothing_comes_between_the_verb_that_puts_it_in_force_and_the_first_room_that_settles(*, reload: bool) -> None:
    """What hosts the last table knew is still being forgotten, say, and would be taken for this one's."""
    scene = Scene()
    changes = scene.changes
    steps = changes.going_to(parse(TEXT + "\n", "test")) if reload else changes.tracking()
    for _ in steps:
        assert scene.room.verbs[-1:] != ["apply"]
    assert scene.room.verbs[-2:] == ["apply", "settle"]
    assert changes.whole


def test_what_is_put_in_force_once_more_while_rooms_settle_or_are_in_doubt_makes_nothing_whole() -> None:
    """Hidden tags are seen, say, in the second after which all of it is to be done again."""
    scene = Scene()
    scene.changes.whole = False
    scene.changes.anew()
    assert scene.last.verbs == ["apply", "settle anew"]
    assert not scene.changes.whole
    finish(scene.changes.tracking())
    assert scene.changes.whole
    scene.changes.anew()
    assert scene.changes.whole


@pytest.mark.parametrize("verb", ["apply", "settle anew"])
def test_where_a_room_fails_as_all_is_put_in_force_once_more_all_is_done_again_soon(verb: str) -> None:
    """The kernel refuses an update of a map, say: the others would go by it, and this one not."""
    scene = Scene()
    scene.room.does[verb] = refuse
    with pytest.raises(MachineError):
        scene.changes.anew()
    assert scene.look.at is not None, "the loop follows the machine"
    assert not scene.changes.whole
    scene.forget()
    del scene.room.does[verb]
    finish(scene.changes.tracking())
    assert scene.last.verbs == ["prepare", "apply", "settle"]
    assert scene.changes.whole


ADDRESS = "2001:db8::51"
WITH_ROLE = TEXT.replace("[[interface.rule]]", f'active_with = "{ADDRESS}"\n[[interface.rule]]')


def test_a_role_changes_though_another_change_of_the_machine_fails_each_time() -> None:
    """There is no memory for a larger program, say: the edge that has lost the address is to be silent all the same."""
    scene = Scene()
    changes, last = scene.changes, scene.last
    finish(changes.going_to(parse(WITH_ROLE, "test")))
    assert last.on_standby
    scene.machine.links = {}
    scene.room.does["prepare"] = refuse
    for addresses in ({ADDRESS}, set[str]()):
        scene.machine.addresses = addresses
        with pytest.raises(MachineError):
            finish(changes.tracking())
        assert last.on_standby == bool(addresses), "as before"
        scene.forget()
        changes.take_roles()
        assert last.verbs == ["apply", "settle"]
        assert (last.on_standby, set(changes.in_force.held)) == (not addresses, addresses)
        assert changes.whole
    del scene.room.does["prepare"]
    finish(changes.tracking())
    assert changes.in_force.links == {}


@pytest.mark.parametrize("given_up", [False, True], ids=["in force", "given up"])
@pytest.mark.parametrize("turn", range(28))
def test_a_role_changes_at_once_whatever_a_reload_is_at_and_so_it_is_after_that(turn: int, *, given_up: bool) -> None:
    """Routes are read for it, say, for up to ten seconds, or a program is loaded."""
    scene = Scene()
    changes, last = scene.changes, scene.last
    finish(changes.going_to(parse(WITH_ROLE, "test")))
    before = changes.in_force.written
    steps = changes.going_to(parse(WITH_ROLE.replace("db8:1:", "db8:2:"), "test"))
    for _ in islice(steps, turn):
        pass
    written = changes.in_force.written
    for addresses in ({ADDRESS}, set[str](), {ADDRESS}):
        scene.machine.addresses = addresses
        changes.take_roles()
        assert (last.on_standby, changes.in_force.written) == (not addresses, written)
    if given_up:
        steps.close()
        assert changes.in_force.written is written
    else:
        finish(steps)
        assert [str(rule.prefix) for rule in changes.in_force.table.rules.values()] == ["2001:db8:2::/64"]
        assert (changes.whole, scene.look.at) == (True, None)
        assert (last.came_from.held == {ADDRESS}) is (written is before), "the log has said so of the role"
    assert not last.on_standby
    assert not scene.room.on_standby


def test_a_role_that_changes_as_a_reload_is_put_in_force_is_that_of_now_before_any_room_settles() -> None:
    """It was made ready with the one before; the rules of the configuration before are let go of, all the same."""
    scene = Scene()
    changes, last = scene.changes, scene.last
    finish(changes.going_to(parse(WITH_ROLE, "test")))
    before = changes.in_force.table
    scene.forget()
    scene.room.does["apply"] = lambda: scene.machine.addresses.add(ADDRESS)
    scene.room.does["settle"] = lambda: said.append(last.on_standby)
    said: list[bool] = []
    finish(changes.going_to(parse(WITH_ROLE.replace("db8:1:", "db8:2:"), "test")))
    assert last.verbs == ["prepare", "apply", "apply", "settle"]
    assert said == [False]
    assert changes._former is before


def test_a_role_that_is_as_it_was_reaches_no_room() -> None:
    scene = Scene()
    finish(scene.changes.going_to(parse(WITH_ROLE, "test")))
    scene.forget()
    scene.look.roles = True
    scene.changes.take_roles()
    assert (scene.room.verbs, scene.look.roles) == ([], False)


@pytest.mark.parametrize("reload", [False, True], ids=["a change of the machine", "a reload"])
def test_the_room_that_commits_applies_first_and_where_it_is_refused_nothing_has_changed(*, reload: bool) -> None:
    """There is no memory for a line of the table, say."""
    committing = Committing()
    scene = Scene(committing)
    committing.others = scene.room
    committing.verbs.clear()
    changes, before = scene.changes, scene.changes.in_force

    def try_it() -> None:
        finish(changes.going_to(parse(TEXT + "\n", "test")) if reload else changes.tracking())

    committing.does["apply"] = refuse
    for times in (1, 2):
        with pytest.raises(MachineError, match="not now"):
            try_it()
        assert scene.room.verbs == scene.last.verbs == ["prepare"] * times
        assert committing.verbs == ["prepare", "apply", "undo"] * times
    assert (changes.in_force, changes.whole, scene.look.at) == (before, True, None)
    del committing.does["apply"]
    try_it()
    assert committing.came_after == ["prepare"]
    assert scene.room.verbs[-2:] == scene.last.verbs[-2:] == ["apply", "settle"]
    assert changes.in_force is not before


def test_where_the_room_that_commits_is_refused_what_is_different_besides_all_is_done_again_soon() -> None:
    """Hidden tags were seen, say."""
    committing = Committing()
    scene = Scene(committing)
    finish(scene.changes.tracking())
    scene.forget()
    committing.does["apply"] = refuse
    with pytest.raises(MachineError):
        scene.changes.anew()
    assert scene.room.verbs == []
    assert scene.look.at is not None, "the loop follows the machine"
    del committing.does["apply"]
    finish(scene.changes.tracking())
    assert scene.room.verbs == ["prepare", "apply", "settle"]
    assert scene.changes.whole


def test_where_a_room_fails_to_settle_after_a_reload_the_others_do_soon() -> None:
    """There is no thread for HTTP, say: ports are to be where the table in force wants them all the same."""
    scene = Scene()
    scene.room.does["settle"] = refuse
    with pytest.raises(MachineError):
        finish(scene.changes.going_to(parse(TEXT, "test")))
    assert scene.last.verbs[-1] == "apply"
    assert scene.look.at is not None, "the loop follows the machine"
    del scene.room.does["settle"]
    finish(scene.changes.tracking())
    assert scene.last.verbs[-1] == "settle"


@pytest.mark.parametrize("verb", ["prepare", "apply", "settle"])
def test_a_reload_says_which_configuration_is_in_use_whichever_verb_a_room_fails_at(verb: str) -> None:
    """What fails to settle comes after that which is in force, and is done again soon."""
    scene, said = Scene(), list[str]()
    view: Any = SimpleNamespace(
        reloaded=lambda: said.append("in use"), reload_failed=lambda _: said.append("failed"), in_use=dict
    )
    manager: Any = SimpleNamespace(ready=lambda _: None, went_on=lambda: None)
    turns = Turns(lambda: False)
    parts: list[Any] = [None, None, lambda _: None, scene.changes, None, view, manager, turns, lambda: None]
    reloads = Reloads(*parts)
    scene.room.does[verb] = refuse
    written = parse(TEXT.replace("db8:1:", "db8:2:"), "test")
    reloads._applying = reloads._going_by(written, 0.0)
    garbage.hold()
    while reloads.is_applying:
        reloads._go_on()
    is_in_force = scene.changes.in_force.written is written
    assert (said, is_in_force) == ((["in use"], True) if verb == "settle" else (["failed"], False))
    assert (scene.look.at is None) == (verb == "prepare"), "else all is done again"


@pytest.mark.parametrize("in_time", [False, True], ids=["given up", "in force"])
def test_places_that_are_prepared_stay_so_while_what_is_in_force_is_put_in_force_once_more(
    tmp_path: Path, *, in_time: bool
) -> None:
    """Hidden tags are seen while a reload is made ready that has the control socket and the metrics elsewhere."""
    first, second = (tmp_path / name for name in ("first.sock", "second.sock"))
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    documents: Any = SimpleNamespace(snapshot=None, overview=None, judgement=None, samples=None, rules=None)
    with closing(Loop()) as loop, closing(Control(str(first), loop)) as control, closing(Exposition(documents)) as web:
        scene = Scene(control, web)
        text = f'[daemon]\ncontrol = "{{}}"\n[metrics]\nlisten = "{{}}"\n{TEXT}'
        finish(scene.changes.going_to(parse(text.format(first, f"[::1]:{port}"), "test")))
        served = web._listening.server
        scene.forget()
        steps = scene.changes.going_to(parse(text.format(second, ""), "test"))
        for _ in steps:
            if scene.last.verbs:
                break
        assert second.exists()
        scene.changes.anew()
        assert (first.exists(), web._listening.server) == (True, served)
        if in_time:
            finish(steps)
            assert (first.exists(), second.exists(), web._listening.server) == (False, True, None)
        else:
            steps.close()
            assert (first.exists(), second.exists(), web._listening.server) == (True, False, served)


def tables() -> set[int]:
    """All that there are."""
    return {id(each) for each in gc.get_objects() if type(each) in (Table, Config, InForce)}  # no proxy of a weak one


def test_what_a_configuration_that_is_refused_at_once_was_made_of_goes_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the end of that reload would look through all of it for what is in circles: 100,000 rules take 90 ms."""
    monkeypatch.setattr("npd6_xdp.daemon.garbage.LARGE", 1)
    scene = Scene()
    scene.machine.links = {**facts(), "lan0": replace(facts()["wan0"], name="lan0", ifindex=8, flags=LinkFlag.NOARP)}
    rule = '[[interface.rule]]\nprefix = "2001:db8:{}::/64"\nmethod = "neighbour"\nvia = ["lan0"]\n'
    text = '[[interface]]\nname = "wan0"\n' + "".join(rule.format(number) for number in range(9))
    with pytest.raises(MachineError, match="via lan0"):
        finish(scene.changes.going_to(parse(text, "test")))
    assert scene.changes.size >= 9
    scene.changes._let_go()
    assert len(scene.changes._remains) == 0


def test_of_a_reload_that_has_come_to_nothing_no_table_is_left_but_for_what_goes_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("npd6_xdp.daemon.garbage.LARGE", 1)
    scene = Scene()
    scene.last.does["prepare"] = refuse
    before = tables()
    with suppress(MachineError):
        finish(scene.changes.going_to(parse(TEXT.replace("db8:1:", "db8:2:"), "test")))
    assert tables() <= before
    assert len(scene.changes._remains) > 0
    scene.changes._let_go()
    assert len(scene.changes._remains) == 0


@contextmanager
def no_thread() -> Iterator[None]:
    """There is no memory for a thread's stack, which would be all that a process can have."""
    threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(0)


def test_a_reload_that_has_no_thread_for_the_metrics_comes_to_nothing_and_those_there_were_are_served_on() -> None:
    with ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)) for _ in range(2)]
        first, second = (each.getsockname()[1] for each in free)
    documents: Any = SimpleNamespace(snapshot=None, overview=None, judgement=lambda: WORKING, samples=None, rules=None)
    with closing(Exposition(documents)) as web:
        scene = Scene(web)
        text = f'[metrics]\nlisten = "[::1]:{{}}"\n{TEXT}'
        finish(scene.changes.going_to(parse(text.format(first), "test")))
        web.serve()
        before = scene.changes.in_force
        scene.forget()
        with no_thread(), pytest.raises(MachineError, match=r"^metrics\.listen: can't start a thread: raise TasksMax="):
            finish(scene.changes.going_to(parse(text.format(second), "test")))
        assert (scene.changes.in_force, scene.changes.whole) == (before, True)
        assert scene.room.verbs == ["prepare"]
        socket.create_server(("::1", second), family=socket.AF_INET6).close()
        with urlopen(f"http://[::1]:{first}/healthz", timeout=60) as answer:
            assert answer.status == 200
        finish(scene.changes.going_to(parse(text.format(second), "test")))
        with urlopen(f"http://[::1]:{second}/healthz", timeout=60) as answer:
            assert answer.status == 200


def test_a_place_that_is_in_force_and_not_yet_taken_is_let_go_of_at_the_end(tmp_path: Path) -> None:
    """The daemon may end before the room has settled."""
    first, second = (tmp_path / name for name in ("first.sock", "second.sock"))
    with closing(Loop()) as loop, closing(Control(str(first), loop)) as control:
        scene = Scene(control)
        scene.room.does["settle"] = refuse
        with pytest.raises(MachineError):
            finish(scene.changes.going_to(parse(f'[daemon]\ncontrol = "{second}"\n{TEXT}', "test")))
        assert second.exists()
    assert (first.exists(), second.exists()) == (False, False)
