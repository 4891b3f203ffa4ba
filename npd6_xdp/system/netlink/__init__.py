# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink: what the kernel is asked, told and heard of. Each room stands on nlsocket."""
