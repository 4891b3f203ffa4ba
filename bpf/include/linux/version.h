/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bcc's helpers.h compares with this; Linux 5.18 is the oldest kernel this program runs on (bpf_xdp_load_bytes). */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 18, 0)
