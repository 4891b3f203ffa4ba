# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.fuzz`, which is deploy/fuzz.sh: frames from a seed through the loaded program and the reference."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, NoReturn

from npd6_xdp.core.errors import MachineError
from tests.fuzz import ground, mutants
from tests.fuzz.configurations import CONFIGURATIONS, NAMES, Configuration
from tests.fuzz.program import CHUNK, Difference, Subject, chunk_seed, copied_sources
from tests.fuzz.smaller import Smaller

_FRAMES = 1_000_000
_MUTANT_CHUNK = 1024
_MUTANT_FRAMES = 1_000_000
"""A mutant that isn't found by then isn't found."""
_PARSERS_SECONDS = 60
_PROGRESS = 10  # seconds between two lines
_WAYS = "", ", by the long way"  # of the program as it is, and without its short way


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fuzz: {message}\n")


class _Chunk(NamedTuple):
    configuration: Configuration
    number: int


def _whole(text: str, least: int = 1) -> int:
    try:
        number = int(text.replace(",", "").replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def _seed(text: str) -> int:
    return _whole(text, 0)


def _frame(text: str) -> bytes:
    try:
        frame = bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a frame is written in hexadecimal digits") from None
    if not 14 <= len(frame) <= 3400:
        raise argparse.ArgumentTypeError(f"a frame has 14 to 3,400 bytes, not {len(frame)}")
    return frame


def _configuration(name: str) -> Configuration:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"there is no configuration {name!r}; there are: {', '.join(NAMES)}")
    return CONFIGURATIONS[NAMES.index(name)]


def _chunk(text: str) -> _Chunk:
    name, slash, number = text.partition("/")
    if not slash:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME/NUMBER, such as static/0")
    return _Chunk(_configuration(name), _whole(number, 0))


def _arguments() -> argparse.Namespace:
    parser = _Parser("fuzz.sh", description="The loaded XDP program against a plain reference; see docs/fuzz.md.")
    parser.add_argument("--frames", type=_whole, metavar="N", help=f"how many frames (default: {_FRAMES:,})")
    parser.add_argument("--seconds", type=_whole, metavar="T", help="go on for so long, instead")
    parser.add_argument("--seed", type=_seed, metavar="S", help="the frames of this seed again (default: a fresh one)")
    parser.add_argument(
        *("--configuration", "-c"),
        type=_configuration,
        action="append",
        metavar="NAME",
        help=f"only this one, as often as you like: {', '.join(NAMES)}",
    )
    parser.add_argument("--tc", action="store_true", help="by the program's function for tc, instead of XDP's")
    parser.add_argument("--chunk", type=_chunk, metavar="NAME/NUMBER", help="only this part of the seed's frames")
    parser.add_argument("--frame", type=_frame, metavar="HEX", help="only this frame, in the configuration given")
    parser.add_argument("--port", metavar="NAME", help="where the --frame comes in (default: wan0)")
    parser.add_argument(
        "--mutants",
        nargs="*",
        metavar="NAME",
        help="whether faults that are put into the program are found; all, or these",
    )
    parser.add_argument("--fault", metavar="MUTANT", help="put this fault into the program first, to see what is said")
    parser.add_argument(
        "--parsers", nargs="?", type=_whole, const=_PARSERS_SECONDS, metavar="SECONDS", help="Python's parsers, instead"
    )
    asked = parser.parse_args()
    modes = [f"--{name}" for name in ("mutants", "parsers", "chunk", "frame") if getattr(asked, name) is not None]
    if len(modes) > 1:
        parser.error(f"{modes[0]} and {modes[1]} don't go together")
    if modes and (asked.frames is not None or asked.seconds is not None):
        parser.error(f"{modes[0]} goes with neither --frames nor --seconds")
    if asked.frames is not None and asked.seconds is not None:
        parser.error("--frames and --seconds don't go together")
    if asked.frame is not None and len(asked.configuration or ()) != 1:
        parser.error("--frame takes one --configuration")
    if asked.fault is not None and (asked.mutants is not None or asked.parsers is not None):
        parser.error(f"--fault and {modes[0]} don't go together")
    if asked.configuration and modes and modes != ["--frame"]:
        parser.error(f"{modes[0]} goes without --configuration")
    if asked.tc and modes and modes[0] in ("--mutants", "--parsers"):
        parser.error(f"{modes[0]} goes without --tc")
    if asked.tc:
        named = [*(asked.configuration or ()), *([asked.chunk.configuration] if asked.chunk else ())]
        if any(each.is_guarded for each in named):
            parser.error("--tc goes without configuration guarded: tc sees the tags beside frames")
    if asked.chunk and asked.seed is None:
        parser.error("--chunk takes the --seed that it is of")
    if asked.frame is None and asked.port is not None:
        parser.error("--port goes with --frame")
    asked.port = asked.port or "wan0"
    if asked.frame is not None and asked.port not in (ports := asked.configuration[0].ports):
        name = asked.configuration[0].name
        parser.error(f"configuration {name} has no port {asked.port!r}; there are: {', '.join(ports)}")
    return asked


def main() -> int:
    """0: no difference, or all mutants found; 1: some, or not all; 2: wrong arguments."""
    asked = _arguments()
    seed = int.from_bytes(os.urandom(4)) if asked.seed is None else asked.seed
    if asked.parsers is not None:
        # not this process's network, and none of its memory
        argv = [sys.executable, "-m", "tests.fuzz.parsers", "--seconds", str(asked.parsers), "--seed", str(seed)]
        sys.stdout.flush()
        os.execv(sys.executable, argv)  # noqa: S606 (there is nothing for a shell in it)
    try:
        chosen = mutants.named([asked.fault] if asked.fault is not None else asked.mutants or [])
    except mutants.MutantError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    try:
        lib, indexes = ground.compiled(), ground.enter()
        ground.route()
        if asked.mutants is not None:
            return _find(lib, indexes, chosen, seed)
        with copied_sources() as directory, copied_sources() as otherwise:
            if asked.fault is not None:
                for each in (directory, otherwise):
                    mutants.apply(chosen[0], each)
            mutants.apply(mutants.SHORT_WAY, otherwise)
            ways = [Subject(lib, indexes, each, by_tc=asked.tc) for each in (directory, otherwise)]
            return _compare(lib, ways, asked, seed)
    except (ground.GroundError, MachineError, mutants.MutantError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1


# --- the program ---


def _chunks(asked: argparse.Namespace) -> Iterator[_Chunk]:
    """What is run: each configuration's first chunk, then each one's second, and so on."""
    if asked.chunk:
        yield asked.chunk
        return
    for number in count():
        for configuration in _configurations(asked):
            yield _Chunk(configuration, number)


def _configurations(asked: argparse.Namespace) -> Sequence[Configuration]:
    return asked.configuration or [each for each in CONFIGURATIONS if not (asked.tc and each.is_guarded)]


def _compare(lib: Any, ways: Sequence[Subject], asked: argparse.Namespace, seed: int) -> int:
    """Each frame by the program as it is, and by the long way alone: both are held against the reference."""
    try:
        if asked.frame is not None:
            return _one(lib, ways, asked)
        _say(f"seed {seed}, {_extent(asked)}")
        started = said = time.monotonic()
        cpu = time.process_time()
        left = (asked.frames or _FRAMES) if not asked.seconds else sys.maxsize
        done: Counter[str] = Counter()
        rounds = len(_configurations(asked))
        for nth, (configuration, number) in enumerate(_chunks(asked)):
            now = time.monotonic()
            if left <= 0 or (asked.seconds and now - started >= asked.seconds and nth >= rounds):
                break
            if now - said > _PROGRESS:
                said = now
                _say(_rate(done.total(), now - started))
            frames = min(CHUNK, left)
            for subject, way in zip(ways, _WAYS, strict=True):
                difference = subject.chunk(configuration, chunk_seed(seed, configuration.name, number), frames)
                if difference is not None:
                    again = f"--seed {seed} --chunk {configuration.name}/{number}" + _said(asked)
                    _tell(lib, subject, difference, again, number, _said(asked), way)
                    return 1
            done[configuration.name] += frames
            left -= frames
        _summary(ways[0].counts, done, time.monotonic() - started, time.process_time() - cpu)
        return 0
    finally:
        for subject in ways:
            subject.close()


def _one(lib: Any, ways: Sequence[Subject], asked: argparse.Namespace) -> int:
    for subject, way in zip(ways, _WAYS, strict=True):
        difference = subject.single(asked.configuration[0], asked.port, asked.frame)
        if difference is not None:
            _tell(lib, subject, difference, "", None, _said(asked), way)
            return 1
    _say(f"no difference: {ways[0].verdict()}")
    return 0


def _extent(asked: argparse.Namespace) -> str:
    if asked.chunk:
        return f"chunk {asked.chunk.number} of configuration {asked.chunk.configuration.name}"
    return f"{asked.seconds:,} s" if asked.seconds else f"{asked.frames or _FRAMES:,} frames"


def _said(asked: argparse.Namespace) -> str:
    """What else a command must say, to show the same again."""
    return ("" if asked.fault is None else f" --fault {asked.fault}") + (" --tc" if asked.tc else "")


def _tell(
    lib: Any, subject: Subject, difference: Difference, repeat: str, chunk: int | None, said: str, way: str
) -> None:
    """All that is needed to look into a difference; `said` is what else the commands must say."""
    configuration, port = difference.configuration, difference.port
    place = "" if chunk is None else f", chunk {chunk}, frame {difference.number} of it"
    _say(f"DIFFERENCE in configuration {configuration.name}{place}{way}: {difference.what}")
    print(f"frame, by {port}: {difference.frame.hex()}")
    print(f"reference: {difference.wanted}")
    print(f"program:   {difference.got}")
    if repeat:
        print(f"again:     deploy/fuzz.sh {repeat}")
    alone = subject.single(configuration, port, difference.frame)
    if alone is None:
        print("alone:     it doesn't differ without the frames before it")
    else:

        def differs(frame: bytes) -> bool:
            found = subject.single(configuration, port, frame)
            return found is not None and found.kind == alone.kind

        smaller = Smaller(lib, differs)
        smallest = smaller.of(difference.frame)
        shown = subject.single(configuration, port, smallest) or alone
        print(f"smallest:  {smallest.hex()}")
        print(f"reference: {shown.wanted}")
        print(f"program:   {shown.got}")
        by = "" if port == "wan0" else f" --port {port}"
        print(f"again:     deploy/fuzz.sh --configuration {configuration.name}{by} --frame {smallest.hex()}{said}")
    print(f"numbers:   {_cut(subject.numbers(configuration))}")
    usual = vars(Configuration("", ""))
    machine = {name: value for name, value in vars(configuration).items() if value != usual[name]}
    del machine["name"], machine["toml"]
    print("machine:   " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"configuration {configuration.name}:\n{_cut(configuration.toml)}")


def _rate(frames: int, seconds: float) -> str:
    return f"{frames:,} frames in {seconds:.1f} s, {frames / seconds:,.0f} a second"


def _cut(text: str, most: int = 5000) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _summary(counts: Mapping[str, int], done: Counter[str], seconds: float, cpu: float) -> None:
    total = done.total()
    _say(f"no difference, {len(done)} configurations: {_rate(total, seconds)}; {total / cpu:,.0f} in one of CPU time")
    width = max(map(len, done))
    for name, frames in done.items():
        print(f"    {name:{width}} {frames:>12,} frames")
    print("    of these: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))


# --- mutants ---


def _find(lib: Any, indexes: Mapping[str, int], chosen: Sequence[mutants.Mutant], seed: int) -> int:
    _say(f"seed {seed}, {len(chosen)} mutants")
    width = max(len(mutant.name) for mutant in chosen)
    missed = []
    for mutant in chosen:
        with copied_sources() as directory:
            mutants.apply(mutant, directory)
            subject = Subject(lib, indexes, directory, by_tc=mutant.by_tc)
            try:
                frames, difference = _until_found(subject, seed, by_tc=mutant.by_tc)
            finally:
                subject.close()
        if difference is None:
            missed.append(mutant.name)
        where = f"in {difference.configuration.name}" if difference else "NOT FOUND"
        print(f"    {mutant.name:{width}} {frames:>9,} frames, {where:12} {mutant.about}", flush=True)
    if missed:
        _say(f"{len(missed)} of {len(chosen)} mutants were not found: {', '.join(missed)}")
        return 1
    _say(f"all {len(chosen)} mutants were found")
    return 0


def _until_found(subject: Subject, seed: int, *, by_tc: bool) -> tuple[int, Difference | None]:
    """How many frames it took, and what differed then."""
    frames = 0
    for number in count():
        for configuration in CONFIGURATIONS:
            if by_tc and configuration.is_guarded:
                continue
            if frames >= _MUTANT_FRAMES:
                return frames, None
            difference = subject.chunk(configuration, chunk_seed(seed, configuration.name, number), _MUTANT_CHUNK)
            if difference is not None:
                return frames + difference.number + 1, difference
            frames += _MUTANT_CHUNK
    raise AssertionError


def _say(text: str) -> None:
    print(f"fuzz: {text}", flush=True)


def _terminated(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)  # so that the copies of the program go


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = main()
    except KeyboardInterrupt:
        print("fuzz: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
