# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp: an IPv6 Neighbor Discovery proxy that matches, checks and answers in XDP."""

__version__ = "0.1.0"
