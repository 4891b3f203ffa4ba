# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark: the daemon, its peers and the kernel under the same generators. docs/benchmark.md has the method."""
