# SPDX-License-Identifier: GPL-2.0-or-later
"""What the map of entries says is packed once, however often only who looks on is another."""

from __future__ import annotations

import time

import pytest

from npd6_xdp.core.config import Limits, Vlan
from npd6_xdp.core.steps import finish
from npd6_xdp.system.bpf import pack
from npd6_xdp.system.bpf.pack import Packed, packing_entries
from npd6_xdp.system.bpf.sizes import needs_of
from tests.core.test_steps import LONGEST, timed
from tests.datapath.harness import PORT, entry, table


def test_entries_are_not_made_anew_for_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    using = table(entry(), entry(vlan=Vlan(tags=(100,))))
    packed: Packed = {}
    made = {traced: finish(packing_entries(using, traced=traced)) for traced in (None, "", PORT, "other0")}
    finish(packing_entries(using, packed=packed))
    monkeypatch.delattr(pack, "_pack_entry")  # which takes long for thousands
    for traced in ("", PORT, "other0", None):
        assert finish(packing_entries(using, packed=packed, traced=traced)) == made[traced]
    assert made[""] == made[PORT] != made[None] == made["other0"]


@pytest.mark.large
def test_no_bit_is_long_of_what_is_packed_of_all_vlans_of_a_port() -> None:
    using = table(*(entry(vlan=Vlan(tags=(vid,))) for vid in range(1, 4095)))
    packed: Packed = {}
    longest, (*_, made) = timed(packing_entries(using, packed=packed))
    assert made == finish(packing_entries(using))
    assert len(made) == len(packed) >= 4094
    began = time.thread_time()
    needs_of(using, Limits())
    assert max(longest, time.thread_time() - began) < LONGEST
