# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said where the kernel opens no perf ring; tests/netns has the rings at work."""

from __future__ import annotations

import pytest

from npd6_xdp.system.bpf.events import refusal


@pytest.mark.parametrize("paranoid", ["3\n", "4\n"])
def test_a_kernel_that_wants_more_than_cap_perfmon_is_named_by_its_sysctl(paranoid: str) -> None:
    assert f"kernel.perf_event_paranoid is {paranoid.strip()}" in refusal(paranoid)
    assert "sysctl -w kernel.perf_event_paranoid=2" in refusal(paranoid)


@pytest.mark.parametrize("paranoid", ["-1\n", "2\n"])
def test_else_it_is_the_memory_or_a_capability(paranoid: str) -> None:
    assert "LimitMEMLOCK=" in refusal(paranoid)
    assert "CAP_PERFMON" in refusal(paranoid)
