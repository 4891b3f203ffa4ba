// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes solicitations of mixed kinds out of live frames (BPF_PROG_TEST_RUN) and sends them out of the asker's interface:
 * one of the pool, drawn by lot, written anew from its first byte to its last; of those that vary, the target is another
 * each time, or the sender's MAC address.
 *
 * It keeps the pace by itself, as the benchmark's generate.c does: a frame that isn't due yet is dropped.
 *
 * -D: FRAMES, how many the pool has (a power of two); MAX_LENGTH, how long one may be; SEED, of the lots.
 */

#define MIN_LENGTH 60

struct frame {
	__u16 length;
	__u16 target;   /* where the target's middle stands, 4 bytes that are 0 and to vary; 0: it stays */
	__u16 checksum; /* where the checksum stands, which is right for that */
	__u16 sender;   /* whether the last 2 bytes of the sender's MAC address vary */
	__u8 byte[MAX_LENGTH];
};

struct pace {
	__u64 next;     /* CLOCK_MONOTONIC, nanoseconds: when the next frame is due */
	__u64 end;      /* and when there is none any more */
	__u64 interval; /* 0: one is always due */
	__u64 lag;      /* who is later than that leaves frames out, instead of a burst that no ring could hold */
};

struct state {
	__u64 lot;
	__u64 sent;
};

BPF_TABLE("array", int, struct frame, pool, FRAMES);
BPF_TABLE("array", int, struct pace, pace_space, 1);
BPF_TABLE("percpu_array", int, struct state, state_space, 1);

/* Marsaglia's xorshift64 */
static inline __attribute__((always_inline)) __u64 lot_draw(struct state *state)
{
	__u64 lot = state->lot ? state->lot : SEED;

	lot ^= lot << 13;
	lot ^= lot >> 7;
	lot ^= lot << 17;
	state->lot = lot;
	return lot;
}

int generate(struct xdp_md *ctx)
{
	int key = 0;
	struct pace *pace = pace_space.lookup(&key);
	struct state *state = state_space.lookup(&key);
	__u64 now = bpf_ktime_get_ns(), lot;
	struct frame *frame;
	__u32 middle, sum;
	__u16 checksum;
	__u64 length;
	int size;

	if (!pace || !state || now >= pace->end || now < pace->next)
		return XDP_DROP;
	if (pace->interval) {
		if (pace->next + pace->lag < now)
			pace->next = now - pace->lag;
		pace->next += pace->interval;
	}
	lot = lot_draw(state);
	key = lot & (FRAMES - 1);
	frame = pool.lookup(&key);
	if (!frame)
		return XDP_DROP;
	length = frame->length;
	size = ctx->data_end - ctx->data;
	asm volatile("" : "+r"(size)); /* else clang subtracts the pointers one after the other */
	if (bpf_xdp_adjust_tail(ctx, (int)length - size))
		return XDP_DROP;
	/* bounds in the very register that goes on, which clang would check in a copy of it */
	asm volatile("if %0 >= %1 goto +1\n\t%0 = %1" : "+r"(length) : "i"(MIN_LENGTH));
	asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(length) : "i"(MAX_LENGTH));
	if (bpf_xdp_store_bytes(ctx, 0, frame->byte, length))
		return XDP_DROP;
	if (frame->target) {
		middle = lot >> 16;
		checksum = 0;
		if (bpf_xdp_load_bytes(ctx, frame->checksum, &checksum, sizeof(checksum)))
			return XDP_DROP;
		sum = (__u16)~checksum + (middle & 0xffff) + (middle >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		checksum = ~sum;
		if (bpf_xdp_store_bytes(ctx, frame->target, &middle, sizeof(middle)) ||
		    bpf_xdp_store_bytes(ctx, frame->checksum, &checksum, sizeof(checksum)))
			return XDP_DROP;
	}
	if (frame->sender) {
		checksum = lot >> 48;
		if (bpf_xdp_store_bytes(ctx, 10, &checksum, sizeof(checksum)))
			return XDP_DROP;
	}
	state->sent++;
	return XDP_TX;
}
