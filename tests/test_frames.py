# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that are made in two ways: they are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.frames import FOREIGN_MAC, SETTING, TAGS_MENU, ip6, plain_solicitation
from tests.kinds import solicit


@pytest.mark.parametrize("tags", TAGS_MENU)
@pytest.mark.parametrize("target", ["2001:db8:1::42", "2001:db8:1:0:ffff:ffff:ffff:ffff", "::2"])
def test_a_plain_solicitation_is_scapys(tags: bytes, target: str) -> None:
    setting = replace(SETTING, tags=tags, target=ip6(target))
    others = replace(setting, asker_mac=FOREIGN_MAC, asker_link_local=ip6("fe80::9"))
    for each in (setting, others):
        assert plain_solicitation(each) == solicit(each)
