// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Puts the frame right and then tail-calls the program to be measured, since BPF_PROG_TEST_RUN's repeats see the
 * frame as the run before left it. What varies from run to run is the same work whichever program comes next, so
 * it goes out in the difference.
 *
 * -D: LENGTH of the frame, COUNT of the things that vary, and VARY, one of the names below.
 */

#define FIXED 0  /* nothing */
#define EXACT 1  /* the target: one of COUNT addresses */
#define PREFIX 2 /* the target: any address of one of COUNT prefixes of 64 bits */
#define SOURCE 3 /* the source MAC: one of COUNT */
#define VLAN 4   /* the VLAN id: one of COUNT, from 1 on; the frame has a tag */

#define AF_INET6 10

#define L3 (VARY == VLAN ? 18 : 14)
#define CHECKSUM (L3 + 42)
#define TARGET (L3 + 48)

struct pristine {
	__u8 byte[128];
};

BPF_TABLE("array", int, struct pristine, pristine_space, 1);
BPF_TABLE("prog", u32, u32, next, 1);

/* Numbers that differ for different `i`, spread as addresses are; tests/bench/program.py has the same. */
#define SPREAD_64(i) ((__u64)(i)*0x9e3779b97f4a7c15ULL)
#define SPREAD_32(i) ((__u32)(i)*0x9e3779b1U)

int restore(struct xdp_md *ctx)
{
	int zero = 0;
	struct pristine *pristine = pristine_space.lookup(&zero);
	int delta = (int)LENGTH - (int)(ctx->data_end - ctx->data);
	__u32 i = COUNT > 1 ? bpf_get_prandom_u32() % COUNT : 0;
	__u32 word[3] = {};
	__u8 *data, *data_end;
	__u64 sum;

	if (!pristine || (delta && bpf_xdp_adjust_tail(ctx, delta)))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + LENGTH > data_end)
		return XDP_ABORTED;
	__builtin_memcpy(data, pristine, LENGTH);

	if (VARY == EXACT) {
		word[1] = (__u32)SPREAD_64(i);
		word[2] = SPREAD_64(i) >> 32;
	} else if (VARY == PREFIX) {
		word[0] = SPREAD_32(i);
		word[1] = bpf_get_prandom_u32();
		word[2] = bpf_get_prandom_u32();
	} else if (VARY == SOURCE) {
		__builtin_memcpy(data + 8, &i, sizeof(i));
	} else if (VARY == VLAN) {
		*(__u16 *)(data + 14) = __builtin_bswap16(i + 1);
	}
	if (VARY == EXACT || VARY == PREFIX) {
		__builtin_memcpy(data + TARGET + 4, word, sizeof(word));
		sum = (__u16) ~*(__u16 *)(data + CHECKSUM) + (__u64)word[0] + word[1] + word[2];
		sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		*(__u16 *)(data + CHECKSUM) = ~sum;
	}
	next.call(ctx, 0);
	return XDP_ABORTED;
}

/* What all costs are over: a program that passes everything. */
int bare(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/*
 * What row 2's answers under `route` are over: a program that only asks where the target is routed to. That is the
 * kernel's work, and no program can save it.
 */
int only_fib_lookup(struct xdp_md *ctx)
{
	struct bpf_fib_lookup fib = { .family = AF_INET6, .ifindex = ctx->ingress_ifindex };
	__u8 *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	int code;

	if (data + TARGET + sizeof(fib.ipv6_dst) > data_end)
		return XDP_ABORTED;
	__builtin_memcpy(fib.ipv6_dst, data + TARGET, sizeof(fib.ipv6_dst));
	code = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	return code == BPF_FIB_LKUP_RET_SUCCESS || code == BPF_FIB_LKUP_RET_NO_NEIGH ? XDP_TX : XDP_PASS;
}

/* The same as bare() of tc: TCX_NEXT. */
int bare_tc(struct __sk_buff *skb)
{
	return -1;
}
