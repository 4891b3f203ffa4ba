# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/metrics.md is what the code says."""

from __future__ import annotations

import pytest

from docs.metrics import LABELS, PAGE, labels, page
from npd6_xdp.core.snapshot import RULE_OUTCOMES
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from tests.prometheus.files import FAMILIES, ROOT


def test_the_reference_is_the_one_that_the_code_writes() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == page(), "python -m docs.metrics > docs/metrics.md"


@pytest.mark.parametrize("word", [*Outcome, *Reason, *Limit, *Method, *FAMILIES, *LABELS])
def test_it_names_every(word: str) -> None:
    assert f"`{word}`" in page() or f"`{word}_total`" in page()


def test_no_label_is_explained_that_no_metric_has() -> None:
    assert {label for family in FAMILIES.values() for label in labels(family)} == set(LABELS)


def test_what_the_text_says_of_outcomes_is_about_real_ones() -> None:
    for outcome in ("invalid", "rate_limited", "answered_xdp", "answered_python", "pending", "lost"):
        assert outcome in set(Outcome)
        assert f"`{outcome}`" in PAGE
    assert set(RULE_OUTCOMES) == set(Method)
