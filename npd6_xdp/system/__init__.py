# SPDX-License-Identifier: GPL-2.0-or-later
"""Every touch of the machine. No room here imports another but those below it in its wing; daemon/ connects them."""
