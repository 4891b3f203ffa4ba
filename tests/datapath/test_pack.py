# SPDX-License-Identifier: GPL-2.0-or-later
"""What the map of entries says is packed once, however often only who looks on is another."""

from __future__ import annotations

import pytest

from npd6_xdp.core.config import Vlan
from npd6_xdp.system.bpf import pack
from npd6_xdp.system.bpf.pack import Packed, pack_entries
from tests.datapath.harness import PORT, entry, table


def test_entries_are_not_made_anew_for_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    using = table(entry(), entry(vlan=Vlan(tags=(100,))))
    packed: Packed = {}
    made = {traced: pack_entries(using, traced=traced) for traced in (None, "", PORT, "other0")}
    pack_entries(using, packed=packed)
    monkeypatch.delattr(pack, "_pack_entry")  # which takes long for thousands
    for traced in ("", PORT, "other0", None):
        assert pack_entries(using, packed=packed, traced=traced) == made[traced]
    assert made[""] == made[PORT] != made[None] == made["other0"]
