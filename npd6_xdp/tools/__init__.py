# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator runs beside the daemon."""
