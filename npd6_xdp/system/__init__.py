# SPDX-License-Identifier: GPL-2.0-or-later
"""All access to the machine. No room here imports another one, except those below it in its wing; daemon/ connects
them.
"""
