// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes solicitations out of live frames (BPF_PROG_TEST_RUN) and sends them out of the asker's interface. Each is
 * written anew from its first byte to its last: the frames' pages come back with the answer in them.
 *
 * It keeps the pace by itself, since each system call that starts it ends with some milliseconds of waiting for
 * the kernel's RCU: a frame that isn't due yet is dropped, which takes some nanoseconds.
 *
 * -D: TARGETS, how many there are.
 */

#define LENGTH 86
#define CHECKSUM 56
#define TARGET_END (62 + 16)

struct pristine {
	__u8 byte[96]; /* the target's last two bytes are 0, and the checksum is right for that */
};

struct pace {
	__u64 next;     /* CLOCK_MONOTONIC, nanoseconds: when the next frame is due */
	__u64 end;      /* and when there is none any more */
	__u64 interval; /* 0: one is always due */
	__u64 lag;      /* who is later than that leaves frames out, instead of a burst that no ring could hold */
};

BPF_TABLE("array", int, struct pristine, pristine_space, 1);
BPF_TABLE("array", int, struct pace, pace_space, 1);
BPF_TABLE("percpu_array", int, __u64, sent, 1);

int generate(struct xdp_md *ctx)
{
	int key = 0;
	struct pristine *pristine = pristine_space.lookup(&key);
	__u64 *count = sent.lookup(&key);
	int delta = LENGTH - (int)(ctx->data_end - ctx->data);
	__u8 *data, *data_end;
	struct pace *pace = pace_space.lookup(&key);
	__u64 now = bpf_ktime_get_ns();
	__u16 number;
	__u32 sum;

	if (!pace || now >= pace->end || now < pace->next)
		return XDP_DROP;
	if (pace->interval) {
		if (pace->next + pace->lag < now)
			pace->next = now - pace->lag;
		pace->next += pace->interval;
	}
	if (!pristine || !count || (delta && bpf_xdp_adjust_tail(ctx, delta)))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + LENGTH > data_end)
		return XDP_DROP;
	__builtin_memcpy(data, pristine, LENGTH);
	number = __builtin_bswap16(*count % TARGETS);
	*(__u16 *)(data + TARGET_END - 2) = number;
	sum = (__u16) ~*(__u16 *)(data + CHECKSUM) + number;
	*(__u16 *)(data + CHECKSUM) = ~((sum & 0xffff) + (sum >> 16));
	++*count;
	return XDP_TX;
}
