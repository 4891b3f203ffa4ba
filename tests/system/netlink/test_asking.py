# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way to ask by rtnetlink: whose answer it is, where it ends, and that a dump must be whole."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from npd6_xdp.core import link_messages
from npd6_xdp.core.rtnetlink import Flag, Type
from npd6_xdp.system.netlink.nlsocket import ATTEMPTS, Asking, Refused, Telling

LINE, LAST, DONE_WELL, GONE = b"a line!!", bytes(4), bytes(4), struct.pack("=i", -errno.ENODEV)


def message(kind: int, sequence: int, body: bytes, flags: int = Flag.MULTI) -> bytes:
    """A struct nlmsghdr, and what stands behind it."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def whole(sequence: int, flags: int = Flag.MULTI) -> list[bytes]:
    """A dump of two lines in two datagrams, and its end in the second."""
    line, last = message(Type.NEWLINK, sequence, LINE, flags), message(Type.DONE, sequence, LAST, flags)
    return [line, line + last]


class Kernel:
    """Answers each question with datagrams of the test's: `says` makes them of its number."""

    def __init__(self, says: Callable[[int], list[bytes]]) -> None:
        self.asked = 0
        self._says = says
        self._waiting: list[bytes] = []

    def send(self, request: bytes) -> None:
        self.asked += 1
        self._waiting += self._says(int.from_bytes(request))

    def recv(self, _: int) -> bytes:
        return self._waiting.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def asking() -> Iterator[Asking]:
    with closing(Asking()) as asking:
        yield asking


def told(asking: Asking, says: Callable[[int], list[bytes]]) -> Any:
    """The kernel that the socket leads to from now on."""
    asking.socket.close()
    kernel: Any = Kernel(says)
    asking.socket = kernel
    return kernel


def request(number: int) -> bytes:
    return number.to_bytes(4)


def test_an_answer_is_all_lines_up_to_its_end_and_none_of_a_question_before(asking: Asking) -> None:
    told(asking, lambda number: [message(Type.NEWLINK, number - 1, b"of another"), *whole(number)])
    found = asking.ask(request)
    assert [line.body for line in found.messages] == [LINE, LINE]
    assert found.whole


def test_a_single_message_ends_an_answer_and_so_does_that_it_was_done(asking: Asking) -> None:
    told(asking, lambda number: [message(Type.NEWLINK, number, LINE, flags=0)])
    assert [line.body for line in asking.ask(request).messages] == [LINE]
    told(asking, lambda number: [message(Type.ERROR, number, DONE_WELL, flags=0)])
    assert asking.ask(request).messages == []


def test_what_the_kernel_refuses_is_raised_with_its_reason(asking: Asking) -> None:
    told(asking, lambda number: [message(Type.ERROR, number, GONE, flags=0)])
    with pytest.raises(Refused) as refused:
        asking.dump(request)
    assert refused.value.errno == errno.ENODEV


@pytest.mark.parametrize(("interrupted", "asked"), [(0, 1), (2, 3), (100, ATTEMPTS)])
def test_a_dump_that_something_changed_under_is_asked_for_anew_a_few_times(
    asking: Asking, interrupted: int, asked: int
) -> None:
    def says(number: int) -> list[bytes]:
        flags = Flag.MULTI | (Flag.DUMP_INTERRUPTED if kernel.asked <= interrupted else 0)
        return whole(number, flags)

    kernel = told(asking, says)
    assert [line.body for line in asking.dump(request)] == [LINE, LINE], "the lines of one dump, not of several"
    assert kernel.asked == asked


def test_where_all_lines_are_wanted_interrupted_dumps_are_taken_together_and_one_that_failed_is_tried_again(
    asking: Asking,
) -> None:
    def says(number: int) -> list[bytes]:
        if kernel.asked == 1:
            return [message(Type.ERROR, number, GONE, flags=0)]
        return whole(number, Flag.MULTI | Flag.DUMP_INTERRUPTED)

    kernel = told(asking, says)
    assert len(asking.dump(request, all_lines=True)) == 2 * (ATTEMPTS - 1)
    assert kernel.asked == ATTEMPTS
    told(asking, lambda number: [message(Type.ERROR, number, GONE, flags=0)])
    with pytest.raises(Refused, match="No such device"):
        asking.dump(request, all_lines=True)


def test_an_answer_that_was_interrupted_in_a_piece_before_is_not_whole_at_its_end() -> None:
    telling = Telling(7)
    first, second = whole(7)
    telling.add(message(Type.NEWLINK, 7, LINE, Flag.MULTI | Flag.DUMP_INTERRUPTED))
    assert (telling.whole, telling.ended) == (False, False)
    telling.add(first)
    telling.add(second)
    assert (telling.whole, telling.ended) == (False, True)


def test_the_kernel_itself_is_asked_and_answers(asking: Asking) -> None:
    links = [link_messages.parse_link(line.body) for line in asking.dump(link_messages.dump_links)]
    assert "lo" in {link.name for link in links if link}
    assert [
        link_messages.parse_link(line.body) for line in asking.ask(lambda n: link_messages.get_link(n, 1)).messages
    ] == [link for link in links if link and link.ifindex == 1]
