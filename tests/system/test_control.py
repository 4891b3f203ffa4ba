# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket with all kinds of clients: nonsense gets an error, and silent clients delay no other."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.control import Connection, ControlServer, Reply
from npd6_xdp.tools.control import ask


class Served:
    """A control socket, and the loop that serves it. Who asks to wait is answered by `answer_all`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop()
        self.server = ControlServer(str(path), self.loop, self._answer, self._keep)
        self.waiting: list[Reply] = []
        self.kept: list[Connection] = []

    def _answer(self, question: dict[str, Any], reply: Reply) -> None:
        match question["verb"]:
            case "wait":
                self.waiting.append(reply)
            case "fail":
                raise RuntimeError("a mistake of ours")
            case _:
                reply({"asked": question})

    def _keep(self, question: dict[str, Any], connection: Connection) -> bool:
        if question["verb"] != "stay":
            return False
        if self.kept:
            raise MachineError("one at a time")
        self.kept.append(connection)
        return True

    def answer_all(self) -> None:
        for reply in self.waiting:
            reply({"waited": True})

    def client(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0)
        client.connect(str(self.path))
        self.turn()
        return client

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0.0)

    def ask(self, line: bytes) -> Any:
        with self.client() as client:
            client.sendall(line)
            self.turn()
            return json.loads(client.recv(65536))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "control.sock")
    yield served
    for connection in served.kept:
        connection.close()
    served.server.close()
    served.loop.close()


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 4000 + b"\n",
        b'{"verb": ' + b"[" * 4000 + b"\n",
        b'{"verb": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        b"\xff\n",
        b"7\n",
        b"{}\n",
        b"\n",
    ],
)
def test_what_is_no_question_is_answered_with_what_one_would_be(served: Served, line: bytes) -> None:
    assert served.ask(line) == {"error": 'not a question: send one line with a JSON object that has a "verb"'}
    assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}


def test_a_client_that_is_hung_up_on_while_it_asks_ends_nothing(served: Served) -> None:
    silent = [served.client() for _ in range(32)]
    with socket.socket(socket.AF_UNIX) as another:
        another.connect(str(served.path))  # takes the first one's place in the very turn
        silent[0].sendall(b'{"verb": "status"}\n')
        served.turn()
    assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}
    for client in silent:
        client.close()


def test_clients_that_say_nothing_keep_nobody_out(served: Served) -> None:
    silent = [served.client() for _ in range(40)]
    assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}
    for client in silent:
        client.close()


def test_one_who_has_begun_to_ask_goes_after_those_who_say_nothing(served: Served) -> None:
    slow = served.client()
    silent = [served.client() for _ in range(31)]
    slow.sendall(b'{"verb": ')
    served.turn()
    silent += [served.client() for _ in range(31)]
    slow.sendall(b'"status"}\n')
    served.turn()
    assert json.loads(slow.recv(65536)) == {"asked": {"verb": "status"}}
    for client in (slow, *silent):
        client.close()


def test_who_waits_for_a_later_answer_gets_it_and_keeps_nobody_out(served: Served) -> None:
    with served.client() as waiting, served.client() as gone:
        for client in (waiting, gone):
            client.sendall(b'{"verb": "wait"}\n')
            served.turn()
        gone.close()
        silent = [served.client() for _ in range(40)]
        assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        served.answer_all()
        assert json.loads(waiting.recv(65536)) == {"waited": True}
        assert waiting.recv(1) == b""
    for client in silent:
        client.close()


def test_who_has_closed_his_end_for_writing_hears_the_answer_all_the_same(served: Served) -> None:
    with served.client() as client:
        client.sendall(b'{"verb": "wait"}\n')
        client.shutdown(socket.SHUT_WR)
        served.turn()
        served.answer_all()
        assert json.loads(client.recv(65536)) == {"waited": True}


def test_a_question_that_makes_us_fail_is_answered_with_that_and_counted(served: Served) -> None:
    assert served.ask(b'{"verb": "fail"}\n') == {"error": "internal error: a mistake of ours; see the log"}
    assert served.loop.failures == {"control": 1}
    assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}


def test_an_answer_that_is_longer_than_a_socket_takes_at_once_comes_whole(served: Served) -> None:
    with served.client() as client:
        client.sendall(b'{"verb": "wait"}\n')
        served.turn()
        served.waiting[0]({"long": "x" * (1 << 21)})
        found = b""
        for _ in range(10_000):
            served.turn()
            try:
                piece = client.recv(1 << 20)
            except BlockingIOError:
                continue
            if not piece:
                break
            found += piece
        assert len(json.loads(found)["long"]) == 1 << 21


def test_who_waits_is_told_that_we_are_at_it_and_hears_the_answer_behind_it(served: Served) -> None:
    with served.client() as waiting, served.client() as silent:
        waiting.sendall(b'{"verb": "wait"}\n')
        served.turn()
        served.server.say_at_work()
        assert waiting.recv(100) == b" "
        served.answer_all()
        said = b"".join(iter(lambda: waiting.recv(100), b""))
        assert json.loads(said) == {"waited": True}
        with pytest.raises(BlockingIOError):
            silent.recv(1)  # he has asked nothing
    served.server.say_at_work()  # to nobody


def test_a_client_waits_as_long_as_it_hears_that_the_daemon_is_at_it(served: Served) -> None:
    found: list[dict[str, Any]] = []
    asker = threading.Thread(target=lambda: found.append(ask(served.path, {"verb": "wait"}, 5.0)))
    asker.start()
    ends = time.monotonic() + 6.0
    while time.monotonic() < ends:
        served.loop.turn(0.1)
        served.server.say_at_work()
    served.answer_all()
    served.turn()
    asker.join()
    assert found == [{"waited": True}]
    with pytest.raises(MachineError, match="not a word in 0 s"):
        ask(served.path, {"verb": "wait"}, 0.1)


def test_long_answers_that_nobody_reads_are_two_at_the_most_and_the_newest_comes_whole(served: Served) -> None:
    clients = []
    for number in range(30):
        clients.append(served.client())
        clients[-1].sendall(b'{"verb": "wait"}\n')
        served.turn()
        served.waiting.pop()(bytes([65 + number]) * (1 << 20))
    assert sum(is_kept(client) for client in clients) == 2
    found = b""
    while piece := receive(served, clients[-1]):
        found += piece
    assert found == bytes([65 + 29]) * (1 << 20)
    assert served.ask(b'{"verb": "status"}\n') == {"asked": {"verb": "status"}}
    for client in clients:
        client.close()


def is_kept(client: socket.socket) -> bool:
    """Whether the server hasn't hung up."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return not poll.poll(0)


def receive(served: Served, client: socket.socket) -> bytes:
    for _ in range(1_000):
        with contextlib.suppress(BlockingIOError):
            return client.recv(1 << 20)
        served.turn()
    raise AssertionError("nothing comes")


def test_one_copy_goes_to_all_who_wait_for_the_same_and_none_of_them_is_hung_up_on(served: Served) -> None:
    clients = [served.client() for _ in range(20)]
    for client in clients:
        client.sendall(b'{"verb": "wait"}\n')
        served.turn()
    whole = b"x" * (1 << 20)
    for reply in served.waiting:
        reply(whole)
    assert all(map(is_kept, clients))
    for client in clients:
        found = b""
        while piece := receive(served, client):
            found += piece
        assert found == whole
        client.close()


def test_a_question_that_came_with_the_connection_is_heard_before_its_place_is_given_away(served: Served) -> None:
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(0)
    silent = [served.client() for _ in range(32)]
    asking.connect(str(served.path))
    served.turn()
    more = []
    asking.sendall(b'{"verb": "status"}\n')
    for _ in range(40):  # all in the very turn
        another = socket.socket(socket.AF_UNIX)
        another.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            another.connect(str(served.path))
        more.append(another)
    served.turn()
    assert json.loads(asking.recv(65536)) == {"asked": {"verb": "status"}}
    for client in (asking, *silent, *more):
        client.close()


def test_a_socket_whose_owner_takes_no_connection_is_another_daemons(tmp_path: Path, served: Served) -> None:
    waiting = []
    for _ in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(str(served.path))
        waiting.append(client)
    with pytest.raises(MachineError, match=r"another npd6-xdp is at .*, and takes no connection; stop it"):
        ControlServer(str(served.path), served.loop, lambda *_: None)
    for client in waiting:
        client.close()


def test_a_connection_that_stays_is_no_client_any_more_and_is_not_dropped_for_others(served: Served) -> None:
    with served.client() as staying, contextlib.ExitStack() as stack:
        staying.sendall(b'{"verb": "stay"}\n')
        served.turn()
        assert served.ask(b'{"verb": "stay"}\n') == {"error": "one at a time"}
        for _ in range(40):
            stack.enter_context(served.client())
        (connection,) = served.kept
        connection.sendall(b"it is still there")
        assert staying.recv(64) == b"it is still there"
        staying.sendall(b"whatever")
        served.turn()
        assert connection.recv(64) == b"whatever", "nobody else reads it"
    served.server.close()
    connection.getpeername()  # raises where it is closed
