# SPDX-License-Identifier: GPL-2.0-or-later
"""What a control group leaves of memory, by the files that the kernel has for it, in both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system import cgroup
from npd6_xdp.system.cgroup import MemoryLimit, free_swap, nearest_limit

V2 = "31 24 0:27 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
OTHER = "30 23 0:26 / / rw - ext4 /dev/vda1 rw\n37 31 0:34 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def v2(group: str, limit: str, current: int, stat: str = "anon 1\n") -> dict[str, str]:
    place = f"sys/fs/cgroup{group}"
    return {f"{place}/memory.max": limit, f"{place}/memory.current": f"{current}\n", f"{place}/memory.stat": stat}


def test_the_nearest_limit_of_all_groups_around_counts_and_a_cache_can_be_had_back(tmp_path: Path) -> None:
    stat = "anon 400\ninactive_file 100\nactive_file 20\nslab_reclaimable 3\nslab 99\n"
    files = v2("/a", "5000\n", 4000) | v2("/a/b", "max\n", 700) | v2("/a/b/c", "2000\n", 600, stat)
    root = machine(tmp_path, "0::/a/b/c\n", OTHER + V2.format(root="/"), files)
    assert nearest_limit(root) == MemoryLimit(root / "sys/fs/cgroup/a/memory.max", 5000, 1000)
    machine(tmp_path, "0::/a/b/c\n", OTHER + V2.format(root="/"), v2("/a", "5000\n", 1000))
    assert nearest_limit(root) == MemoryLimit(root / "sys/fs/cgroup/a/b/c/memory.max", 2000, 1523)


def test_in_a_container_the_group_that_is_mounted_is_the_root(tmp_path: Path) -> None:
    files = v2("", "3000\n", 1000)
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), files)
    assert nearest_limit(root) == MemoryLimit(root / "sys/fs/cgroup/memory.max", 3000, 2000)
    machine(tmp_path, "0::/docker/x\n", V2.format(root="/docker/x"), {})
    assert nearest_limit(root) == MemoryLimit(root / "sys/fs/cgroup/memory.max", 3000, 2000)
    machine(tmp_path, "0::/elsewhere\n", V2.format(root="/docker/x"), {})
    assert nearest_limit(root) is None


def test_the_first_version_beside_an_empty_second_is_read_by_its_own_names(tmp_path: Path) -> None:
    place = "sys/fs/cgroup/memory/x"
    files = {
        f"{place}/memory.limit_in_bytes": "900\n",
        f"{place}/memory.usage_in_bytes": "500\n",
        f"{place}/memory.stat": "inactive_file 7\ntotal_inactive_file 40\ntotal_active_file 2\n",
    }
    unified = V2.format(root="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    root = machine(tmp_path, "5:cpu:/y\n4:memory:/x\n0::/\n", OTHER + V1 + unified, files)
    assert nearest_limit(root) == MemoryLimit(root / place / "memory.limit_in_bytes", 900, 442)


@pytest.mark.parametrize("groups", ["", "0::/\n", "nonsense\n", "0::/gone\n"])
def test_where_nothing_is_limited_or_seen_there_is_no_space_to_speak_of(tmp_path: Path, groups: str) -> None:
    assert nearest_limit(machine(tmp_path, groups, OTHER + V2.format(root="/"), {})) is None
    assert nearest_limit(tmp_path / "nothing") is None


def test_what_surely_does_not_fit_is_an_error_that_says_how_much_would(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = MemoryLimit(Path("/sys/fs/cgroup/x/memory.max"), 100_000_000, 40_000_000)
    monkeypatch.setattr(cgroup, "nearest_limit", lambda: limit)
    monkeypatch.setattr(cgroup, "free_swap", lambda: 0)
    cgroup.require(40_000_000, "loading 7 rules")
    with pytest.raises(MachineError) as caught:
        cgroup.require(66_000_000, "loading 7 rules")
    assert str(caught.value) == (
        "loading 7 rules takes some 66 MB of memory, and of the 100 MB that /sys/fs/cgroup/x/memory.max allows 40 are"
        " left: allow 126 at the least (MemoryMax= of the service)"
    )
    monkeypatch.setattr(cgroup, "free_swap", lambda: 30_000_000)
    cgroup.require(66_000_000, "loading 7 rules")


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("max\n", 0, 8192), ("0\n", 0, 0), ("6000\n", 1000, 5000), ("500\n", 900, 0)]
)
def test_swap_counts_as_far_as_each_group_around_may_take_it(tmp_path: Path, limit: str, used: int, left: int) -> None:
    files = v2("/a", "5000\n", 4000) | v2("/a/b", "max\n", 700) | {"proc/meminfo": "MemFree: 1 kB\nSwapFree: 8 kB\n"}
    files |= {"sys/fs/cgroup/a/memory.swap.max": limit, "sys/fs/cgroup/a/memory.swap.current": f"{used}\n"}
    assert free_swap(machine(tmp_path, "0::/a/b\n", OTHER + V2.format(root="/"), files)) == left


def test_in_the_first_version_swap_is_what_both_may_take_beyond_the_memory(tmp_path: Path) -> None:
    place = "sys/fs/cgroup/memory/x"
    names = ("limit_in_bytes", "usage_in_bytes", "memsw.limit_in_bytes", "memsw.usage_in_bytes")
    files = {f"{place}/memory.{name}": f"{value}\n" for name, value in zip(names, (900, 500, 1300, 600), strict=True)}
    files |= {"proc/meminfo": "SwapFree: 8 kB\n"}
    assert free_swap(machine(tmp_path, "4:memory:/x\n", OTHER + V1, files)) == 300
    assert free_swap(tmp_path / "nothing") == 0
