# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak: a hundred million solicitations of all kinds while the machine changes; each counted once, and all flat."""
