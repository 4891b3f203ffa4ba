# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles and loads C through bcc, and puts what the compiler and the verifier print into our errors."""

from __future__ import annotations

import ctypes as ct
import errno
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError, NotInstalled, as_machine_error, remedy

_PACKAGE = Path(__file__).resolve().parents[2]
BPF_DIRECTORY = _PACKAGE / "bpf" if (_PACKAGE / "bpf").is_dir() else _PACKAGE.parent / "bpf"
"""Part of the package where it is installed, beside it in a source tree: pyproject.toml maps the one to the other."""
OLDEST_KERNEL = (5, 18)  # bpf_xdp_load_bytes()
_CAP_SYS_ADMIN = 21  # includes the two newer ones
_CAPABILITIES = {"CAP_BPF": (39, _CAP_SYS_ADMIN), "CAP_NET_ADMIN": (12,), "CAP_PERFMON": (38, _CAP_SYS_ADMIN)}
_COMPILER = ("/libLLVM", "/libclang")
_MADV_DONTNEED = 4
FLAGS = ("-O2", "-g0", "-Wall", "-Wno-unused-function")
"""Without what is for debuggers, which takes a fifth of the compiler's time, and which no kept program has."""
ONCE = ("-Xclang", "-disable-llvm-passes", "-Xclang", "-disable-lifetime-markers")
"""bcc has LLVM optimize what clang makes, so clang itself needn't: that takes a third of the time. Without the second
option clang marks where each variable's life ends, and the verifier walks half as much again of what LLVM 19
makes of that.
"""
_UNKNOWN = "unknown argument"
_WALKED = "processed "  # ... insns: the verifier's last line


def load_bcc() -> Any:
    """The bcc module. Raises NotInstalled with the package to install if it isn't there, or isn't the real one, and
    MachineError if it can't be loaded now.
    """
    try:
        with as_machine_error("can't load bcc"):
            import bcc
    except ImportError:
        bcc = None
    except MachineError as error:
        if os.strerror(errno.ENOENT) not in str(error):  # of its library, of which the linker tells in words alone
            raise
        raise NotInstalled(f"{error}: install the distribution's package of it once more") from error
    if not hasattr(bcc, "BPF"):
        raise NotInstalled(
            "bcc is missing: install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora: python3-bcc)"
            " and run with /usr/bin/python3 or a virtual environment with system site packages"
            " (the package `bcc` of the Python Package Index is another thing)"
        )
    return bcc


def compile_program(source: str, function: str, definitions: Mapping[str, int]) -> tuple[Any, Any]:
    """Compile C and load one function as an XDP program: the bcc module object and its function.

    Raises MachineError with the compiler's or the verifier's words, of which bcc itself prints all to file
    descriptor 2 and raises none.
    """
    kind = load_bcc().BPF.XDP
    module = compile_text(source, definitions)
    try:
        return module, load_function(module, function, kind)
    except MachineError as error:
        if _WALKED not in str(error):
            raise
    # of what clang has optimized as well, the verifier may think otherwise: it is tried by few versions of clang
    module.cleanup()
    module = _compiled(source, definitions)
    return module, load_function(module, function, kind)


def compile_text(source: str, definitions: Mapping[str, int]) -> Any:
    """Compile C, and load none of its functions: the bcc module object. Raises MachineError as well."""
    try:
        return _compiled(source, definitions, ONCE)
    except MachineError as error:
        if _UNKNOWN not in str(error):
            raise
    return _compiled(source, definitions)  # what is clang's own business may be another thing in a later one


def _compiled(source: str, definitions: Mapping[str, int], more: Sequence[str] = ()) -> Any:
    # Stub headers stand in for the kernel's, which need not be installed (bpf/include).
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_DIRECTORY)
    flags = [*more, *FLAGS, *(f"-D{name}={value}" for name, value in definitions.items())]
    with words_caught():
        return load_bcc().BPF(text=source.encode(), cflags=flags)


def load_function(module: Any, function: str, kind: int) -> Any:
    """Load another function of a compiled module, as a program of a kind of bcc's. Raises MachineError as well."""
    with words_caught():
        return module.load_func(function.encode(), kind)


@contextmanager
def words_caught() -> Iterator[None]:
    """While bcc works: what it prints becomes part of a MachineError, if it fails."""
    for handler in logging.getLogger("npd6-xdp").handlers + logging.getLogger().handlers:
        handler.flush()  # what was logged before is none of its words
    with as_machine_error("can't compile the XDP program"), os.fdopen(os.memfd_create("words"), "r+b") as words:
        # the verifier gives up when a signal waits (EAGAIN), and what a signal ends has file descriptor 2 back by then
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        saved = os.dup(2)
        try:
            os.dup2(words.fileno(), 2)
            yield
        except Exception as error:  # bcc raises nothing more exact
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
            raise MachineError(_why_not(str(error), said)) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def give_back_memory() -> None:
    """Give back the memory that the compiler leaves behind: 18 MB of free heap that glibc keeps, and 74 MB of mapped
    code. Even where nothing was compiled, 45 MB of code are mapped, as bcc's library needs it. Code is read from the
    page cache again if it is needed. Only executable mappings are let go of: those are as the file has them, while the
    linker has written into others.
    """
    libc = ct.CDLL(None)
    with suppress(AttributeError):  # other C libraries have no such call
        libc.malloc_trim(0)
    with suppress(OSError):
        for mapping in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, *_, name = mapping.split()
            if permissions == "r-xp" and any(library in name for library in _COMPILER):
                start, end = (int(address, 16) for address in addresses.split("-"))
                libc.madvise(ct.c_void_p(start), ct.c_size_t(end - start), _MADV_DONTNEED)


def _missing_capabilities() -> list[str]:
    """The capabilities that loading takes and this process lacks. Without CAP_PERFMON the verifier refuses with pages
    of text.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return [name for name, bits in _CAPABILITIES.items() if not any(effective >> bit & 1 for bit in bits)]


def _is_of_a_user_namespace() -> bool:
    """Whether capabilities aren't those of the machine; the first namespace alone has all users' ids as they are."""
    with suppress(OSError):
        return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    return False


def _why_not(error: str, said: str) -> str:
    refused = any(words in f"{error}\n{said}".lower() for words in ("super-user", "not permitted", "permission denied"))
    if refused and (missing := _missing_capabilities()):
        return (
            f"not permitted to load an XDP program: without {' and '.join(missing)};"
            " run as root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        )
    if refused and _is_of_a_user_namespace():
        return (
            "not permitted to load an XDP program in a user namespace, such as an unprivileged container has, where"
            " root isn't root of the machine: run npd6-xdp outside of it"
        )
    if (shortage := os.strerror(errno.EMFILE)) in said:
        return f"the XDP program can't be loaded: {remedy(OSError(errno.EMFILE, shortage))}"
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < OLDEST_KERNEL:
        return f"Linux {release} is too old: npd6-xdp needs 5.18 or newer"
    return f"the XDP program can't be loaded: {error}" + (f"\n{said}" if said else "")
