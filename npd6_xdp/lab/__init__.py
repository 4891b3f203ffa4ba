# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: upstream, edge and host as network namespaces, the real daemon on the edge, and their story."""
