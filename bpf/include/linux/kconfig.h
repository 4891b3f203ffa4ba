/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bcc passes this with -include; its helpers ask for no more of the kernel's configuration than this. */
#define CONFIG_BPF_SYSCALL 1
