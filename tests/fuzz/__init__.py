# SPDX-License-Identifier: GPL-2.0-or-later
"""The loaded program and Python's parsers, against what they should say of whatever comes: docs/fuzz.md."""

INSTALL_ATHERIS = ".venv/bin/python -m pip install atheris"
"""What one does to have the parsers' bytes made by atheris; nothing else needs it, so deploy/setup.sh doesn't do it."""
