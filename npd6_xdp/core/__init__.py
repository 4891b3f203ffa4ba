# SPDX-License-Identifier: GPL-2.0-or-later
"""The pure core: no socket, no bcc, no clock, no file. Everything arrives as an argument."""
