# SPDX-License-Identifier: GPL-2.0-or-later
"""The neighbour table at the pace of packets: watched, and the kernel made to resolve who is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core import neighbour_messages, rtnetlink
from npd6_xdp.core.neighbour_messages import NeighbourEntry, NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.dumps import SlicedDump
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import hash_in

_REMEMBERED = 8192  # hosts that the kernel was asked for last: it refuses in the same turn


def _host(entry: NeighbourEntry) -> Host:
    return Host(entry.ifindex, entry.address)


class NeighbourWatch:
    """Says what changes in the neighbour table (`fileno` becomes readable), and has the kernel resolve targets.

    It hears of changes while listen() says so.
    """

    def __init__(self) -> None:
        self._changes = nlsocket.Switched(nlsocket.Group.NEIGH)
        self._requests = nlsocket.opened()
        self._dump = SlicedDump()
        self._sent: dict[int, Host] = {}
        self._sequence = 0

    def close(self) -> None:
        """Close all sockets."""
        self._changes.socket.close()
        self._requests.close()
        self._dump.close()

    def fileno(self) -> int:
        """The socket of notifications."""
        return self._changes.socket.fileno()

    def refusals_fileno(self) -> int:
        """The socket on which the kernel says what it doesn't resolve."""
        return self._requests.fileno()

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news."""
        return self._changes.listen(wanted=wanted)

    @property
    def listening(self) -> bool:
        """Whether it hears of changes."""
        return self._changes.listening

    @property
    def unfinished(self) -> bool:
        """Whether take_changes() is to be called again, even if `fileno` isn't readable."""
        return self._changes.lost

    def take_changes(self, deadline: float) -> Iterator[tuple[Host, Word]]:
        """What changed, in order: hosts and the word for them, NUD_NONE where an entry is gone. Raises Overflow.

        It ends at the deadline (seconds, monotonic), and what is left waits.
        """
        for message in self._changes.take_messages(deadline):
            entry = neighbour_messages.parse_neighbour(message.body)
            if entry is not None and not entry.proxy:
                gone = message.type == Type.DELNEIGH
                yield _host(entry), Word(NeighbourState.NONE) if gone else Word(entry.state, entry.mac)

    def table(self) -> Iterator[list[tuple[Host, Word]]]:
        """The neighbour table in pieces: see SlicedDump.pieces().

        A dump goes on at a bucket's number. When the table, which all network namespaces share, has outgrown its
        buckets meanwhile, others are in each of them: of 20,000 entries 1,900 were left out, and no flag says so.
        """
        before: list[Message] = []
        for piece in self._dump.pieces(neighbour_messages.dump_neighbour_tables):
            before += piece
            yield []
        for piece in self._dump.pieces(neighbour_messages.dump_neighbours):
            entries = (neighbour_messages.parse_neighbour(message.body) for message in piece)
            yield [(_host(entry), Word(entry.state, entry.mac)) for entry in entries if entry and not entry.proxy]
        after: list[Message] = []
        for piece in self._dump.pieces(neighbour_messages.dump_neighbour_tables):
            after += piece
            yield []
        if hash_in(before) != hash_in(after):
            raise Overflow

    def resolve(self, host: Host, keep: NeighbourState = NeighbourState.NONE) -> None:
        """Have the kernel resolve a host, or confirm it in its time where it is stale.

        `keep` is what of LOOKED_AFTER its entry has. take_refusals() has what the kernel won't do.
        """
        self._sequence = self._sequence % _REMEMBERED + 1  # 0 is what nobody asks the fate of
        self._sent[self._sequence] = host
        self._send(neighbour_messages.use_neighbour(self._sequence, *host, keep))

    def probe(self, host: Host, keep: NeighbourState = NeighbourState.NONE, *, again: bool = False) -> None:
        """Have the kernel ask a host that it has an entry of, and now; `again`: though it has asked it a moment ago."""
        if again:
            self._send(neighbour_messages.delay_neighbour(0, *host, keep))
        self._send(neighbour_messages.probe_neighbour(0, *host, keep))

    def delete(self, host: Host) -> None:
        """Take out an entry that nobody needs: a target that isn't there."""
        self._send(neighbour_messages.delete_neighbour(0, *host))

    def take_refusals(self, deadline: float) -> Iterator[tuple[Host, int]]:
        """What the kernel didn't do of what resolve() has asked for, and why (errno); until the deadline."""
        try:
            for datagram in nlsocket.take_datagrams(self._requests, deadline):
                for message in rtnetlink.messages(datagram):
                    host = self._sent.get(message.sequence)
                    if message.type == Type.ERROR and host is not None:
                        yield host, rtnetlink.error_code(message.body)
        except OSError as error:  # some refusals are lost: those targets are given up by their age
            nlsocket.unless_full(error, "refusals")

    def _send(self, request: bytes) -> None:
        try:
            self._requests.send(request)
        except OSError:
            return  # no space in our own queue: as if the kernel had found nobody
