# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that an earlier start has compiled is the one that would be compiled now, or it is compiled."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.daemon.loading import Loading
from npd6_xdp.system.aside import Aside
from npd6_xdp.system.bpf import compiled, compiler, early_maps, shelf
from npd6_xdp.system.bpf import load as loading
from npd6_xdp.system.bpf.compiled import Compiled, Function, Map
from npd6_xdp.system.bpf.compiler import BPF_DIRECTORY, load_bcc
from npd6_xdp.system.bpf.early_maps import EarlyMaps
from npd6_xdp.system.bpf.load import Loaded, load
from npd6_xdp.system.bpf.sizes import memory_to_load, sizes_for
from tests.datapath.harness import Bench, entry, table
from tests.kernels.machine import walked_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")

SIZES = sizes_for([table(entry())], Limits())
OTHER_SIZES = {name: 3 * size + number for number, (name, size) in enumerate(SIZES.items())}
WAIT = 60.0  # seconds


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the program, compiled once for all that follow."""
    place = tmp_path_factory.mktemp("once") / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", str(place))
        load(SIZES).close()
    return place


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: Path) -> Path:
    """The directory of this test, with the program."""
    place = tmp_path / "kept"
    shutil.copytree(once, place)
    monkeypatch.setenv("CACHE_DIRECTORY", str(place))
    return place


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_program(*_: object) -> NoReturn:
        pytest.fail("it is compiled")

    monkeypatch.setattr(loading, "compile_program", compile_program)


@contextmanager
def to_be_compiled() -> Iterator[None]:
    """What is loaded within has to be compiled; to know that, nothing need be."""

    def compile_program(*_: object) -> NoReturn:
        raise MachineError("it is compiled")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "compile_program", compile_program)
        with pytest.raises(MachineError, match=r"^it is compiled$"):
            yield


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were compiled."""
    seen: list[str] = []
    real = compiler.compile_program

    def compile_program(source: str, function: str, definitions: Mapping[str, int]) -> Any:
        seen.append(source)
        return real(source, function, definitions)

    monkeypatch.setattr(loading, "compile_program", compile_program)
    return seen


def info(fd: int, layout: str) -> tuple[Any, ...]:
    """What the kernel says of a map or a program, as far as the layout goes."""
    buffer = ctypes.create_string_buffer(struct.calcsize(layout))
    length = ctypes.c_uint32(len(buffer))
    assert load_bcc().lib.bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)) == 0
    return struct.unpack(layout, buffer.raw)


def map_info(fd: int) -> tuple[Any, ...]:
    """Type, sizes of key and value, entries, flags, name."""
    return info(fd, "=I4x4I16s")


def program_info(fd: int) -> tuple[Any, ...]:
    """Type, the digest of the instructions, name, how many instructions the verifier walked."""
    return (*info(fd, "=I4x8s"), *info(fd, "=64x16s"), walked_of(fd))


def all_info(loaded: Loaded) -> list[tuple[Any, ...]]:
    programs = loaded.fd, loaded.need_tc(), loaded.tap_fd
    return [*map(map_info, loaded.maps.values()), *map(program_info, programs)]


def descriptors() -> set[str]:
    """Numbers of files that are open, but for that of the list itself."""
    return {path.name for path in list(Path("/proc/self/fd").iterdir()) if path.is_symlink()}


@contextmanager
def nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def compiled_now(sizes: Mapping[str, int]) -> tuple[Compiled, Loaded]:
    """What bcc makes of the program's text with maps of these sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", os.devnull)
        loaded = load(sizes)
    bcc, module = load_bcc(), loaded.module.module
    return compiled.taken(bcc.lib, module, loading._kinds(bcc), loading._SIZED_BY, loading._MODELS), loaded


def test_no_instruction_depends_on_the_size_of_a_map_and_each_size_is_one_maps() -> None:
    assert sorted(loading._SIZED_BY.values()) == sorted(SIZES)
    (one, a), (other, b) = compiled_now(SIZES), compiled_now(OTHER_SIZES)
    with closing(a), closing(b):
        assert one.functions == other.functions
        assert one == replace(other, maps=one.maps)
        for sizes, made in ((SIZES, one), (OTHER_SIZES, other)):
            assert {each.sized_by: each.entries for each in made.maps if each.sized_by} == sizes
        assert [each._replace(entries=0) for each in one.maps if each.sized_by] == [
            each._replace(entries=0) for each in other.maps if each.sized_by
        ]
        assert [each for each in one.maps if not each.sized_by] == [each for each in other.maps if not each.sized_by]


@pytest.mark.parametrize("sizes", [SIZES, OTHER_SIZES])
def test_the_kernel_has_the_same_maps_and_programs_as_if_they_were_compiled(sizes: Mapping[str, int]) -> None:
    _, fresh = compiled_now(sizes)
    with closing(fresh), closing(load(sizes)) as found:
        assert found.module is None
        assert all_info(found) == all_info(fresh)
        assert list(found.maps) == list(fresh.maps)


def programs() -> int:
    """How many programs this process has loaded, or was handed."""
    found = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return found.count("anon_inode:bpf-prog")


def test_the_function_for_tc_is_loaded_once_it_is_asked_for() -> None:
    """As many ports never need it."""
    before = programs()
    with nothing_stays_open(), closing(load(SIZES)) as kept:
        assert programs() == before + 2
        assert kept.need_tc() == kept.need_tc()
        assert programs() == before + 3
    with nothing_stays_open(), closing(compiled_now(SIZES)[1]) as fresh:
        assert programs() == before + 2
        assert fresh.need_tc() == fresh.need_tc()
        assert programs() == before + 3


@pytest.mark.usefixtures("no_compiler")
def test_a_start_after_the_first_compiles_nothing_and_leaves_nothing_open() -> None:
    with nothing_stays_open():
        for sizes in (SIZES, OTHER_SIZES):
            load(sizes).close()


@pytest.mark.usefixtures("no_compiler")
def test_what_was_kept_is_found_without_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """platform.architecture() would run file(1), at each start twice."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **_: started.append(words))
    assert loading.is_kept()
    assert started == []


def test_a_process_beside_the_daemon_hands_over_what_was_kept() -> None:
    with closing(Loading(SIZES)) as loading:
        while (loaded := loading.take()) is None:
            assert select.select([loading], [], [], WAIT)[0]
    loaded.close()


@pytest.mark.usefixtures("no_compiler")
def test_a_program_that_was_kept_answers() -> None:
    with closing(Bench(table(entry()))) as bench:
        assert bench.ns_filter.program.module is None


def test_the_first_start_keeps_it_for_the_second(place: Path, compilations: list[str]) -> None:
    shutil.rmtree(place)
    for _ in range(3):
        load(SIZES).close()
    assert len(compilations) == 1


def only(place: Path) -> Path:
    (file,) = place.iterdir()
    return file


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garbled(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[1000] ^= 0x10
    file.write_bytes(data)


def rewritten(change: Callable[[Compiled], Compiled]) -> Callable[[Path], None]:
    """Changed, and with a digest that fits: the kernel is to refuse it."""

    def rewrite(file: Path) -> None:
        found = shelf.read(file.stem, Compiled.unpack)
        assert found is not None
        shelf.write(file.stem, change(found).pack())

    return rewrite


def without_its_end(found: Compiled) -> Compiled:
    first, *others = found.functions
    return replace(found, functions=(first._replace(code=first.code[:-8]), *others))


def without_a_map(found: Compiled) -> Compiled:
    return replace(found, maps=found.maps[1:])


def with_a_map_of_no_kind(found: Compiled) -> Compiled:
    first, *others = found.maps
    return replace(found, maps=(first._replace(kind=10_000), *others))


def with_a_size_of_no_name(found: Compiled) -> Compiled:
    first, *others = found.maps
    return replace(found, maps=(first._replace(sized_by="NO_MAX"), *others))


def of_words(found: Compiled) -> Compiled:
    first, *others = found.maps
    return replace(found, maps=(first._replace(kind="hash"), *others))  # type: ignore[arg-type]


BROKEN: dict[str, Callable[[Path], None]] = {
    "half of it": half,
    "a bit that fell over": garbled,
    "nothing": lambda file: os.truncate(file, 0),
    "a program that the verifier refuses": rewritten(without_its_end),
    "a map too few": rewritten(without_a_map),
    "a map that the kernel doesn't know": rewritten(with_a_map_of_no_kind),
    "a size that nobody gives": rewritten(with_a_size_of_no_name),
    "words for numbers": rewritten(of_words),
    "a text": lambda file: shelf.write(file.stem, b"\x04\0\0\0true"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_removed_and_compiled(place: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    BROKEN[kind](only(place))
    with nothing_stays_open(), to_be_compiled():
        load(SIZES)
    assert list(place.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_is_broken_is_replaced(place: Path, compilations: list[str]) -> None:
    whole = only(place).read_bytes()
    garbled(only(place))
    for _ in range(2):
        load(SIZES).close()
    assert len(compilations) == 1
    assert only(place).read_bytes() == whole


@pytest.mark.parametrize("what", ["bcc", "kernel", "cpus", "text", "header", "flags", "sizes", "functions", "library"])
def test_what_another_compiler_has_made_or_of_another_text_or_on_another_machine_is_not_loaded(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bcc = load_bcc()
    if what == "bcc":
        monkeypatch.setattr(bcc, "__version__", "0.99.0")
    elif what == "kernel":
        machine = os.uname()
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((*machine[:2], "7.9.0", *machine[3:])))
    elif what == "cpus":
        monkeypatch.setattr(bcc.utils, "get_possible_cpus", lambda: list(range(64)))
    elif what == "text":
        source = loading._source(BPF_DIRECTORY)
        monkeypatch.setattr(loading, "_source", lambda _: source + "\n")
    elif what == "header":
        shutil.copytree(BPF_DIRECTORY, tmp_path / "bpf")
        with (tmp_path / "bpf/include/linux/log2.h").open("a") as header:
            header.write("\n")
        monkeypatch.setattr(compiler, "BPF_DIRECTORY", tmp_path / "bpf")
    elif what == "flags":
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DANYTHING"))
    elif what == "sizes":
        monkeypatch.setattr(loading, "_SIZED_BY", {**loading._SIZED_BY, "events": "EVENTS_MAX"})
    elif what == "functions":
        kinds = loading._kinds(bcc)
        monkeypatch.setattr(loading, "_kinds", lambda _: {**kinds, "another": bcc.BPF.XDP})
    else:
        libraries = compiled._libraries()
        monkeypatch.setattr(compiled, "_libraries", lambda: [(*libraries[0][:2], 1), *libraries[1:]])
    with to_be_compiled():
        load(SIZES)


def test_where_the_compiler_was_replaced_since_it_was_loaded_nothing_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    """As an upgrade of it does: what it makes now isn't what the next start's would."""
    shutil.rmtree(place)
    real = Path.stat

    def stat(path: Path, **keys: bool) -> os.stat_result:
        return real(path.with_name(f"{path.name} (deleted)") if "libclang" in path.name else path, **keys)

    monkeypatch.setattr(Path, "stat", stat)
    load(SIZES).close()
    assert len(compilations) == 1
    assert not place.exists()


def test_a_header_that_changes_while_it_is_compiled_has_it_not_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(place)
    shutil.copytree(BPF_DIRECTORY, tmp_path / "bpf")
    monkeypatch.setattr(compiler, "BPF_DIRECTORY", tmp_path / "bpf")
    real = compiler.load_function

    def load_function(*arguments: Any) -> Any:
        (tmp_path / "bpf/include/linux/log2.h").write_text("another\n")
        return real(*arguments)

    monkeypatch.setattr(loading, "load_function", load_function)
    load(SIZES).close()
    assert not place.exists()


def test_what_need_not_be_compiled_takes_no_memory_for_the_compiler(place: Path) -> None:
    few = memory_to_load([table(entry())], Limits())
    only(place).unlink()
    assert memory_to_load([table(entry())], Limits()) == few + 66_000_000 - 31_000_000


def refusal(monkeypatch: pytest.MonkeyPatch, place: str) -> str:
    monkeypatch.setenv("CACHE_DIRECTORY", place)
    with pytest.raises(MachineError) as caught:
        load(SIZES)
    return str(caught.value)


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """No more than so many files can be opened within."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hogs: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, descriptors())) + 1 + free, before[1]))
    try:
        with suppress(OSError):
            while True:
                hogs.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(hogs.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for hog in hogs:
            os.close(hog)


def test_without_descriptors_it_says_what_it_says_when_it_is_compiled(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with few_descriptors(14):
        compiled_said = refusal(monkeypatch, os.devnull)  # bcc leaves its maps open
    with nothing_stays_open(), few_descriptors(14):
        said = refusal(monkeypatch, str(place))
    assert "LimitNOFILE=" in said
    assert said == compiled_said
    assert only(place), "nothing is wrong with it"


def test_without_privileges_it_says_what_it_says_when_it_is_compiled(
    once: Path, shared_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shared_path / "kept"
    shutil.copytree(once, place)
    monkeypatch.setenv("CACHE_DIRECTORY", str(place))
    for path in (place, only(place)):
        os.chown(path, 4711, 4711)

    def refused() -> Iterator[str]:
        os.setresuid(4711, 4711, 4711)
        for where in (os.devnull, str(place)):
            yield refusal(monkeypatch, where)

    with closing(Aside(refused)) as aside:
        said: list[str] = []
        while not aside.over:
            assert select.select([aside], [], [], WAIT)[0]
            said += aside.take()
    assert "CAP_BPF" in said[0]
    assert said[0] == said[1]


words = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(0, 2**32 - 1)
maps = st.builds(Map, words, numbers, numbers, numbers, numbers, numbers, words, words)
functions = st.builds(Function, words, numbers, st.binary(max_size=64))
some = st.builds(Compiled, st.lists(maps).map(tuple), st.lists(functions).map(tuple), words, numbers)


@given(some)
def test_what_is_packed_is_unpacked(made: Compiled) -> None:
    assert Compiled.unpack(made.pack()) == made


@given(some, st.data())
def test_what_was_not_packed_is_refused_or_means_something_else(made: Compiled, data: st.DataObject) -> None:
    packed = bytearray(made.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError):
        Compiled.unpack(bytes(packed))
    with suppress(ValueError):
        Compiled.unpack(bytes(packed[: data.draw(st.integers(0, len(packed)))]))


@given(st.binary(max_size=64))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in whatever words
        Compiled.unpack(garbage)


# --- maps that are made before the program is there ---------------------------------------------------------------


@pytest.mark.usefixtures("no_compiler")
def test_maps_that_are_made_early_are_the_programs_and_nothing_is_left() -> None:
    before = descriptors()
    with nothing_stays_open(), closing(EarlyMaps(SIZES)) as early:
        (fd,) = map(int, descriptors() - before)
        with closing(load(SIZES, early=early)) as loaded, closing(load(SIZES)) as other:
            assert loaded.maps["rule_counters"] == fd
            assert map_info(fd) == map_info(other.maps["rule_counters"]), "as bcc has it from the text"


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("why", ["another size", "another text", "it refuses"])
def test_a_map_that_is_not_as_the_text_has_it_is_made_anew(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "another text":
        monkeypatch.setattr(early_maps, "_MADE", {"rule_counters": (2, "RULE_COUNTERS_MAX")})  # an array of all CPUs'
    elif why == "it refuses":
        monkeypatch.setattr(early_maps, "create_map", lambda *_: -1)
    sizes = OTHER_SIZES if why == "another size" else SIZES
    with nothing_stays_open(), closing(EarlyMaps(sizes)) as early, closing(load(SIZES, early=early)) as loaded:
        entries = map_info(loaded.maps["rule_counters"])[3]
        assert entries == SIZES["RULE_COUNTERS_MAX"]
        assert map_info(loaded.maps["rule_counters"])[0] == 6, "BPF_MAP_TYPE_PERCPU_ARRAY"


def test_where_the_program_cannot_be_loaded_no_early_map_is_left(place: Path) -> None:
    (file,) = place.iterdir()
    broken = shelf.read(file.stem, Compiled.unpack)
    assert broken is not None
    ahead = without_its_end(broken).pack()
    file.unlink()
    with nothing_stays_open(), closing(EarlyMaps(SIZES)) as early, to_be_compiled():
        load(SIZES, ahead, early)
