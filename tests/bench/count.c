// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sits on the asker's interface and counts the advertisements that come back. They go no further, but for those to
 * one MAC address, `deliver`. It keeps a sample of them, and the moment at which one came for each target.
 *
 * -D: SAMPLE, of how many advertisements one is kept; PLACES, how many of these there is space for.
 */

#define ND_NEIGHBOR_ADVERT 136
#define NA_LENGTH 86

struct advert {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
	__u8 ip6h[40];
	__u8 icmp6_type;
	__u8 rest[7];
	__u8 target[14];
	__be16 number; /* the target's last 16 bits, by which the asker tells its questions apart */
	__u8 opt[8];
} __attribute__((packed));

_Static_assert(sizeof(struct advert) == NA_LENGTH, "an untagged NA with one link-layer address option");

struct sample {
	__u8 byte[96];
};

struct settings {
	__u64 deliver; /* a MAC address: its 6 bytes, and 2 that are 0; 0: none */
	__u64 timed;   /* whether to note when they came */
};

struct counts {
	__u64 answers;   /* all advertisements */
	__u64 delivered; /* those of them to `deliver` */
	__u64 others;    /* other frames */
};

BPF_TABLE("array", int, struct settings, settings_space, 1);
BPF_TABLE("percpu_array", int, struct counts, counts_space, 1);
BPF_TABLE("percpu_array", int, struct sample, samples, PLACES);
/* CLOCK_MONOTONIC, nanoseconds; mapped into the asker, which looks there and waits for no socket */
BPF_F_TABLE("array", int, __u64, arrivals, 65536, BPF_F_MMAPABLE);

int count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct advert *na = data;
	struct settings *settings;
	struct counts *counts;
	struct sample *sample;
	int key = 0, place;
	__u64 to = 0;

	counts = counts_space.lookup(&key);
	settings = settings_space.lookup(&key);
	if (!counts || !settings)
		return XDP_PASS;
	if ((void *)(na + 1) > data_end || na->h_proto != __builtin_bswap16(0x86dd) || na->ip6h[6] != 58 ||
	    na->icmp6_type != ND_NEIGHBOR_ADVERT) {
		counts->others++;
		return XDP_PASS;
	}
	if (settings->timed) {
		__u64 now = bpf_ktime_get_ns();

		key = __builtin_bswap16(na->number);
		arrivals.update(&key, &now);
	}
	if (!(counts->answers % SAMPLE)) {
		place = counts->answers / SAMPLE % PLACES;
		sample = samples.lookup(&place);
		if (sample)
			__builtin_memcpy(sample, na, NA_LENGTH);
	}
	counts->answers++;
	__builtin_memcpy(&to, na->h_dest, sizeof(na->h_dest));
	if (to != settings->deliver)
		return XDP_DROP;
	counts->delivered++;
	return XDP_PASS;
}
