# SPDX-License-Identifier: GPL-2.0-or-later
"""A struct's bytes by its fields' names."""

from __future__ import annotations

import struct

import pytest

from npd6_xdp.core.layout import Layout

PAIR = Layout("pair", one="H", mac="6s", pad="4x", two="I")
VALUES = {"one": 1, "mac": b"abcdef", "two": 2}
BYTES = struct.pack("=H6s4xI", *VALUES.values())


def test_a_struct_is_packed_by_names_in_whatever_order_they_come() -> None:
    assert PAIR.pack_named(two=2, mac=b"abcdef", one=1) == BYTES == PAIR.pack(*VALUES.values())
    assert PAIR.unpack(BYTES) == tuple(VALUES.values())


def test_a_name_that_is_missing_or_one_too_many_is_an_error_not_a_zero() -> None:
    with pytest.raises(KeyError, match="two"):
        PAIR.pack_named(one=1, mac=b"abcdef")
    with pytest.raises(TypeError, match="struct pair has no pad"):
        PAIR.pack_named(**VALUES, pad=b"0000")


def test_one_field_is_read_and_replaced_and_the_others_stay() -> None:
    assert {name: PAIR.get(BYTES, name) for name in VALUES} == VALUES
    assert PAIR.unpack(PAIR.replaced(BYTES, "mac", b"ABCDEF")) == (1, b"ABCDEF", 2)
    assert PAIR.unpack(PAIR.replaced(BYTES, "two", 9)) == (1, b"abcdef", 9)


def test_fields_stand_side_by_side_in_the_machines_order_of_bytes() -> None:
    assert [(field.name, field.offset, field.size) for field in PAIR.fields.values()] == [
        ("one", 0, 2),
        ("mac", 2, 6),
        ("pad", 8, 4),
        ("two", 12, 4),
    ]
    assert PAIR.size == 16
    assert Layout("u16", value="H").pack(1) == struct.pack("=H", 1)
