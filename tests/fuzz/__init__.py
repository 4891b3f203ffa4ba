# SPDX-License-Identifier: GPL-2.0-or-later
"""The loaded program and Python's parsers, against what they should say of whatever comes: docs/fuzz.md."""
