# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes with the real daemon for any kernel that it runs on; deploy/kernels.sh boots Debian's and runs them there."""
