# SPDX-License-Identifier: GPL-2.0-or-later
"""When a certificate ends: read of its bytes, and held against what openssl(1) says."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.certificates import SOON, certificate_warning, not_after
from tests.certificates import self_signed

DAY = 86_400.0
NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


@pytest.mark.parametrize("days", [1, 30, 20_000])  # the last one ends after 2049, which takes another type
def test_it_ends_when_openssl_says_that_it_does(tmp_path: Path, days: int) -> None:
    self_signed(tmp_path, "server", days=days)
    file = tmp_path / "server.crt"
    said = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", file], check=True, capture_output=True, text=True
    )
    der = ssl.PEM_cert_to_DER_cert(file.read_text())
    assert not_after(der) == ssl.cert_time_to_seconds(said.stdout.strip().removeprefix("notAfter="))
    for size in range(0, len(der) - 1, 7):
        with pytest.raises(ValueError, match="no certificate"):
            not_after(der[:size])


@given(st.binary(max_size=80))
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        not_after(data)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (NOW + SOON + 1, ""),
        (NOW + SOON, "it ends at 2027-01-29 08:00 UTC; renew it, then npd6-xdp reload"),
        (NOW + 1, "it ends at 2027-01-15 08:00 UTC; renew"),
        (NOW, "it ended at 2027-01-15 08:00 UTC, and clients refuse it; renew"),
        (NOW - 400 * DAY, "it ended at 2025-12-11 08:00 UTC"),
    ],
)
def test_it_is_warned_of_two_weeks_before_its_end_and_after_it(ends: float, words: str) -> None:
    line = certificate_warning("/etc/npd6-xdp/server.crt", ends, NOW)
    assert line.startswith(f"the TLS certificate /etc/npd6-xdp/server.crt: {words}" if words else "")
    assert bool(line) == bool(words)
