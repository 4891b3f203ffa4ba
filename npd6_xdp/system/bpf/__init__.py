# SPDX-License-Identifier: GPL-2.0-or-later
"""What has to do with BPF: the events that a program sends up, what its taps find, runs of it without an interface."""
