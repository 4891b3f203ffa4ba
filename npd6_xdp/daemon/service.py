# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever runs us as a service, as a start finds him: what he hears, what he keeps, and how the starts before went."""

from __future__ import annotations

import logging
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.logged import fields
from npd6_xdp.daemon.clean import clean
from npd6_xdp.system.fd_store import FdStore
from npd6_xdp.system.manager import ServiceManager
from npd6_xdp.system.starts import MOST, Starts

log = logging.getLogger("npd6-xdp")


class Service(NamedTuple):
    """Whom we tell how we are, who keeps what outlives us, and who counts the starts."""

    manager: ServiceManager
    store: FdStore
    starts: Starts


def begin() -> Service:
    """One more start begins: counted before anything is touched that may keep it from getting ready.

    What answers for a predecessor answers by what that one knew. Where too many starts since then have come to nothing,
    all of it is taken away here, so that it doesn't go on for ever.
    """
    manager, starts = ServiceManager(), Starts()
    store = FdStore(manager.send)
    # else one that dies between the two would leave a successor nothing
    manager.behind(lambda: store.due is not None)
    failed = starts.begin() if store else 0
    if failed >= MOST and store.inherited:
        for name in [*store.inherited]:
            store.release(name)
        log.error(
            "%d starts in a row didn't get ready: what answered meanwhile, by what a process before them knew, is taken"
            " away; nothing is answered until a start succeeds",
            failed,
        )
        try:
            clean()
        except MachineError as error:
            log.warning(
                "can't take away what a process before has added to the kernel: %s",
                error,
                extra=fields(error=str(error)),
            )
    return Service(manager, store, starts)
