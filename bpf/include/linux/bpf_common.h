/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Empty on purpose: bcc includes this header of the kernel tree, and nothing of it is needed here. */
