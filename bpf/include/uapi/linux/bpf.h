/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Empty on purpose: bcc carries its own copy of bpf.h and has already included it. */
