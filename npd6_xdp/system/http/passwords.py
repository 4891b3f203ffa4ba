# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether who asks has said a user's name and password: HTTP's Basic scheme (RFC 7617), against bcrypt's hashes.

Bcrypt is slow on purpose, so each verdict is remembered, and one is worked out at a time, whoever asks: by the thread
of the connection, without Python's lock. Addresses take turns, so who tries many passwords keeps another waiting for
one of them only.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address

from npd6_xdp.core.errors import MachineError, NotInstalled
from npd6_xdp.core.web_config import Place, WebConfig

_MOST_RIGHT = 1024
_MOST_WRONG = 4096
_LONGEST = 72  # bytes of a password that bcrypt looks at; some versions refuse longer ones


class Unusable(MachineError):
    """What a web configuration names or needs, at a place of it, can't be used."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.place = place
        self.what = what


class Lacking(Unusable):
    """This machine doesn't have it, or this user may not read it."""


class LackingPackage(Lacking, NotInstalled):
    """A package that it takes isn't installed."""


class Verdicts:
    """What was found of passwords, for as long as this process lives, by digests that mean nothing elsewhere.

    `check` says whether a password has a hash, both as bytes, and takes its time.
    """

    def __init__(self, check: Callable[[bytes, bytes], bool] | None = None) -> None:
        self._check = check
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()  # many wrong ones push no right one out
        self._turn = threading.Condition()
        self._taken = False
        self._waiting: dict[str, deque[object]] = {}  # by address, the one whose turn is next first

    def get_ready(self, place: Place) -> None:
        """Raises LackingPackage where there is no bcrypt."""
        if self._check is None:
            try:
                from bcrypt import checkpw
            except ImportError as error:
                what = "Python's bcrypt is missing, which checks passwords: install python3-bcrypt, or"
                raise LackingPackage(place, f"{what} npd6-xdp[web] by pip") from error
            self._check = checkpw

    def find(self, hashed: str, password: bytes, who: str, is_wanted: Callable[[], bool]) -> bool:
        """Whether a password is that of a hash. `who` is the address that wants to know; a verdict that isn't
        remembered, and not wanted any more when its turn has come, is not worked out.
        """
        digest = hashlib.blake2b(hashed.encode() + b"\0" + password, key=self._key).digest()
        if (known := self._known(digest)) is not None:
            return known
        with self._its_turn(who):
            if (known := self._known(digest)) is not None:  # somebody has asked the same meanwhile
                return known
            if not is_wanted():
                return False
            assert self._check is not None
            found = b"\0" not in password and bool(self._check(password[:_LONGEST], hashed.encode()))
        with self._lock:
            memory, most = (self._right, _MOST_RIGHT) if found else (self._wrong, _MOST_WRONG)
            memory[digest] = None
            while len(memory) > most:
                memory.popitem(last=False)
        return found

    def _known(self, digest: bytes) -> bool | None:
        with self._lock:
            for memory in (self._right, self._wrong):
                if digest in memory:
                    memory.move_to_end(digest)
                    return memory is self._right
        return None

    @contextmanager
    def _its_turn(self, who: str) -> Iterator[None]:
        mine = object()
        with self._turn:
            self._waiting.setdefault(who, deque()).append(mine)
            self._turn.wait_for(lambda: not self._taken and next(iter(self._waiting.values()))[0] is mine)
            self._taken = True
            others = self._waiting.pop(who)
            others.popleft()
            if others:  # behind all other addresses
                self._waiting[who] = others
        try:
            yield
        finally:
            with self._turn:
                self._taken = False
                self._turn.notify_all()


class Passwords:
    """Those of a web configuration that has users. Raises LackingPackage where there is no bcrypt."""

    def __init__(self, web: WebConfig, verdicts: Verdicts) -> None:
        self._users: Mapping[bytes, str] = {name.encode(): hashed for name, hashed in web.users}
        _, like = web.users[0]
        self._nobody = like[:7] + "." * 53  # a name that there isn't takes as long as one that there is
        self._verdicts = verdicts
        verdicts.get_ready(web.users_place)

    def allow(self, authorization: str | None, host: str, is_wanted: Callable[[], bool]) -> bool:
        """Whether a question with this header, from this host, is to be answered."""
        scheme, _, said = (authorization or "").strip().partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(said.strip(), validate=True).partition(b":")
        except ValueError:
            return False
        if not colon:
            return False
        hashed = self._users.get(name)
        found = self._verdicts.find(hashed or self._nobody, password, _network(host), is_wanted)
        return found and hashed is not None


def _network(host: str) -> str:
    """Whoever has one address of IPv6 has its whole /64."""
    address = ip_address(host.partition("%")[0])
    return host if address.version == 4 else str(int(address) >> 64)
