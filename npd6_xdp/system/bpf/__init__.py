# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF: the program compiled, loaded, filled, attached and read; its rings and taps; runs of it without an interface."""
