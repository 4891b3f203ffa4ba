# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of the commands' arguments: numbers that something can be done for, or a line that says what is wrong."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> float:
    """A finite number above 0, of seconds or minutes. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number
