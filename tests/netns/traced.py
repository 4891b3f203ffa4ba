# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp that writes down who calls whom once its loop turns: traced.py FILE ARGUMENT..., a line for each call.

A line has the process and the thread, then the rooms that the call was made through, the called one last, each as
FILE:FUNCTION. Of frames in a row that are of one room, the innermost stands for all, with * behind it where the
outermost is a generator, or a function that was made within another. What isn't of npd6_xdp isn't in it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from inspect import CO_GENERATOR
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import npd6_xdp
from npd6_xdp import cli
from npd6_xdp.daemon.loop import Loop

HOME = Path(npd6_xdp.__file__).parent


def tracer(file: str) -> Callable[[FrameType, str, Any], None]:
    """What sys.setprofile() takes; forks and threads may call it, too."""
    places: dict[CodeType, tuple[str, str, bool]] = {}
    stack: dict[int, list[CodeType]] = {}  # by thread

    def place(code: CodeType) -> tuple[str, str, bool]:
        """FILE (empty for what isn't ours), FUNCTION, and whether that was made for one call."""
        found = places.get(code)
        if found is None:
            path = Path(code.co_filename)
            room = str(path.relative_to(HOME)) if path.is_relative_to(HOME) else ""
            for_one = bool(code.co_flags & CO_GENERATOR) or "<locals>" in code.co_qualname
            found = places[code] = room, code.co_qualname, for_one
        return found

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            stack.setdefault(threading.get_ident(), []).append(frame.f_code)
            if place(frame.f_code)[0]:
                write(stack[threading.get_ident()])
        elif event == "return":
            codes = stack.get(threading.get_ident(), [])
            while frame.f_code in codes and codes.pop() is not frame.f_code:
                pass  # one whose end wasn't told

    def write(codes: list[CodeType]) -> None:
        rooms: list[str] = []
        room, outermost = "", ""
        for file_of, function, for_one in filter(lambda found: found[0], map(place, codes)):
            if file_of != room:
                room, outermost = file_of, "*" if for_one else ""
                rooms.append("")
            rooms[-1] = f"{room}:{function}{outermost}"
        line = " ".join([f"{os.getpid()}/{threading.get_ident()}", *rooms])
        written = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # each time: a fork closes all that is open
        os.write(written, f"{line}\n".encode())
        os.close(written)

    return profile


def main(file: str, *arguments: str) -> int:
    """Run the command line."""
    profile, run = tracer(file), Loop.run

    def traced(self: Loop, look: Callable[[], float], where: str) -> None:
        sys.setprofile(profile)
        run(self, look, where)

    # Python 3.11.2 dies of frames that were given to a profile function and that its collector looks at
    gc.set_threshold(0)
    gc.collect = lambda *_: 0
    Loop.run = traced  # type: ignore[method-assign]
    threading.setprofile(profile)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
