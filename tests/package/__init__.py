# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages: Debian's, in roots of its own, and the wheel."""
