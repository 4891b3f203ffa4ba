// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Notes when two processes enter and leave the system calls that a question and its answer are made of. A moment
 * stands in `moments` under its step: the first one since the last question was sent.
 *
 * -D: ASKER and DAEMON, thread ids; SENDTO, EPOLL_WAIT, SENDMMSG, numbers of system calls.
 */

struct bpf_raw_tracepoint_args;

enum step {
	ASKER_SENDS,
	ASKER_HAS_SENT,
	DAEMON_WAKES,
	DAEMON_SENDS,
	STEPS,
};

BPF_F_TABLE("array", int, __u64, moments, STEPS, BPF_F_MMAPABLE);
BPF_TABLE("array", int, __u64, under_way, 2); /* the system call that each of the two is in */

static inline __attribute__((always_inline)) void note(int step)
{
	__u64 now = bpf_ktime_get_ns(), *moment = moments.lookup(&step);

	if (moment && !*moment)
		*moment = now;
}

static inline __attribute__((always_inline)) void forget(int step)
{
	__u64 none = 0;

	moments.update(&step, &none);
}

int enter(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 call = ctx->args[1];
	int who = thread == DAEMON;

	if (thread != ASKER && thread != DAEMON)
		return 0;
	under_way.update(&who, &call);
	if (thread == ASKER && call == SENDTO) {
		for (int step = 0; step < STEPS; step++)
			forget(step);
		note(ASKER_SENDS);
	} else if (thread == DAEMON && (call == SENDTO || call == SENDMMSG)) {
		note(DAEMON_SENDS);
	}
	return 0;
}

int leave(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	int who = thread == DAEMON;
	__u64 *call;

	if (thread != ASKER && thread != DAEMON)
		return 0;
	call = under_way.lookup(&who);
	if (!call)
		return 0;
	if (thread == ASKER && *call == SENDTO)
		note(ASKER_HAS_SENT);
	else if (thread == DAEMON && *call == EPOLL_WAIT)
		note(DAEMON_WAKES);
	return 0;
}
