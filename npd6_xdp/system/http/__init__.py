# SPDX-License-Identifier: GPL-2.0-or-later
"""What is served over HTTP. The endpoint is handed what it is to serve; it asks nobody else."""
