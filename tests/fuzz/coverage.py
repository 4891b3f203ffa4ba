# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.fuzz.coverage TARGET SEED SECONDS`: one target under atheris, which sees what code an input reaches.

A process of its own: libFuzzer ends it. The first fault is written to stdout as JSON, {"why", "data" (hex)}, and then
{"runs"}: how many inputs there were.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import INSTALL_ATHERIS

try:
    import atheris
except ImportError:
    sys.exit(f"coverage: atheris isn't installed: {INSTALL_ATHERIS}")

with atheris.instrument_imports(include=["npd6_xdp", "tomllib"]):
    from tests.fuzz.targets import Target, targets

_SHRINKING = 3.0  # seconds


def fault(target: Target, data: bytes) -> str:
    """What goes wrong with some bytes, and where; "" if nothing does."""
    try:
        target.check(data)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
    return ""


def smaller(target: Target, data: bytes, why: str) -> bytes:
    """Fewer bytes that go wrong at the same place."""
    place = why.rpartition(" (")[2]
    ends = time.monotonic() + _SHRINKING
    size = len(data) // 2
    while size and time.monotonic() < ends:
        at = 0
        while at < len(data) and time.monotonic() < ends:
            less = data[:at] + data[at + size :]
            if fault(target, less).endswith(place):
                data = less
            else:
                at += size
        size //= 2
    return data


def main(name: str, seed: str, seconds: str) -> None:
    """Fuzz until the first fault or the end of the time; never returns."""
    target = targets()[name]
    ends = time.monotonic() + float(seconds)
    runs = 0

    def over(**found: str | int) -> None:
        print(json.dumps({**found, "runs": runs}), flush=True)
        os._exit(0)

    def one(data: bytes) -> None:
        nonlocal runs
        runs += 1
        if why := fault(target, data):
            over(why=why, data=smaller(target, data, why).hex())
        if time.monotonic() > ends:
            over()

    with tempfile.TemporaryDirectory(prefix="npd6-xdp-fuzz-") as corpus:
        directory = Path(corpus)
        for number, sample in enumerate(target.samples):
            (directory / f"{number}").write_bytes(sample)
        words = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words if len(word) < 100]
        dictionary = directory / "words.dict"
        dictionary.write_text("".join(f'"{word}"\n' for word in words))
        options = [f"-seed={int(seed) % (1 << 31) or 1}", "-max_len=8192", "-timeout=20"]
        options += [f"-dict={dictionary}"] if words else []  # an empty one is refused
        atheris.Setup([sys.argv[0], *options, "-verbosity=0", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
