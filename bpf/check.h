// SPDX-License-Identifier: GPL-2.0-or-later
/* check: RFC 4861 §7.1.1, and what other RFCs add to it; order and ids are those of docs/rules.md, A. */
#ifndef NPD6_CHECK_H
#define NPD6_CHECK_H

#include "parse.h"

#define MESSAGE_MAX 4096 /* bytes of ICMPv6 that are looked at; a longer NS is left to the kernel (H5) */
#define CSUM_CHUNK 512   /* the most that bpf_csum_diff() takes before Linux 6.13 */

/*
 * Bounds for a __u64, compared in the register that is used afterwards: clang compares one copy and uses another, and
 * before Linux 6.3 the verifier may not know that the two are equal.
 */
#define at_least(x, least) asm volatile("if %0 >= %1 goto +1\n\t%0 = %1" : "+r"(x) : "i"(least))
#define at_most(x, most) asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(x) : "i"(most))

/* Whether a target is routed. */
enum presence {
	PRESENCE_ABSENT,
	PRESENCE_THERE,
	PRESENCE_UNKNOWN, /* only the kernel can tell, and Python ask it */
};

/* What became of a solicitation: an enum action, enum outcome and so on each. */
struct ended {
	volatile __u8 action;
	volatile __u8 outcome;
	volatile __u8 limit;
	volatile __u8 check;
	volatile __u8 reason;
	volatile __u8 xdp_action;
	volatile __u16 decision;
	volatile __u32 rule;
};

/*
 * What is known of one solicitation: the message after its pseudo-header's addresses (adjacent, for the checksum), and
 * the results of each step. It is in a map, not on the stack, because the verifier doesn't track what a map holds: else
 * it would walk the rest of the program once more for each combination of tags, extension headers, length and options,
 * and give up.
 */
struct scratch {
	struct in6_addr source;
	struct in6_addr destination;
	union {
		struct nd_msg ns;
		__u8 message[2 * MESSAGE_MAX + 8];
	};
	struct frame frame;
	struct entry_key entry_key; /* by which the frame's entry is looked for */
	/* volatile, or clang would keep them in registers through the loop over the options after all */
	volatile __u32 option;      /* offset in `message` */
	volatile __u32 has_sllao;   /* there is a source link-layer address option, of whatever length */
	volatile __u32 sllao;       /* offset in `message` of the one that counts, 0 for none */
	volatile __u32 presence;    /* enum presence, by the routing table */
	volatile __u32 left_route;  /* enum presence + 1: what the short way found for a frame that goes the long one */
	volatile __u32 found_route; /* the same, taken over; 0: the short way hasn't looked */
	volatile __u32 event_flags; /* enum event_flag: what Python has to know */
	volatile __u32 is_held;     /* it may have a tag that doesn't show, and is to be held until that is known */
	volatile __u64 traced_at;   /* CLOCK_MONOTONIC, nanoseconds: it is traced, and its record begun; 0: it isn't */
	struct ended ended;         /* what became of it, for who looks on */
	__u64 handed_up;            /* when it became an event: CLOCK_MONOTONIC, nanoseconds */
	__u64 table_writes;         /* how many there were when `entry` was looked for */
	struct entry entry;         /* the frame's: a copy, since in its map another may be written over it */
	volatile __u32 has_rule;    /* whether a rule covers the target */
	struct rule rule;           /* that one, from whichever map */
	__u8 answer_mac[ETH_ALEN];  /* where an answer goes (B8) */
};

/* What came of the checks. */
enum check {
	CHECK_PASSED,
	CHECK_FAILED,
	CHECK_TOO_LONG, /* it is too long to be checked */
};

struct checked {
	enum check check;
	enum reason reason; /* of CHECK_FAILED */
};

/* A2: the checksum over pseudo-header and message, RFC 8200 §8.1; `length` is at most MESSAGE_MAX. */
static __always_inline bool is_checksum_valid(struct scratch *s, __u64 length)
{
	/* htons each: htonl(length) + htonl(58) would overflow 32 bits from length 198 on */
	__u64 sum = BE16(NEXTHDR_ICMP) + BE16(length);
	__u64 total = sizeof(s->source) + sizeof(s->destination) + ((length + 3) & ~3);
	__u8 *bytes = (__u8 *)s;

	/* bpf_csum_diff() takes whole 32-bit words: zeros behind the message, where the last one left bytes */
	opaque(length);
	__builtin_memset(&s->message[length & (2 * MESSAGE_MAX - 1)], 0, 4);
#pragma unroll
	for (__u32 done = 0; done < MESSAGE_MAX + 2 * CSUM_CHUNK; done += CSUM_CHUNK) {
		__u64 chunk = total - done;

		if (total <= done)
			break;
		at_most(chunk, CSUM_CHUNK);
		sum = (__u32)bpf_csum_diff(NULL, 0, bytes + done, chunk, sum);
	}
	return csum_fold(sum) == 0xffff;
}

/* All bits if `x` (below 2^63) is 0, else none; without a branch, of which the verifier would walk either side. */
static __always_inline __u64 ones_if_zero(__u64 x)
{
	opaque(x);
	return (__s64)(x - 1) >> 63;
}

/*
 * A6: every option has a length above 0 and ends within the message. Notes on the way where the source
 * link-layer address stands: the first such option of length 1 counts, others are as absent.
 *
 * The verifier walks this loop once for each state that reaches it, and the rest of it for each branch inside that goes
 * on: so all branches in it leave it.
 */
static __always_inline bool options_check(struct scratch *s)
{
	__u64 length = s->frame.length;

	s->has_sllao = 0;
	s->sllao = 0;
	s->option = sizeof(struct nd_msg);

	for (__u64 i = 0; i < MESSAGE_MAX / 8; i++) {
		__u64 pos = s->option, sllao, size, other;
		const __u8 *option;

		if (pos == length)
			return true;
		option = &s->message[pos & (MESSAGE_MAX - 8)]; /* the mask changes nothing, see `opaque` */
		size = option[1] * 8;
		if (size - 1 >= length - pos)
			return false; /* it has no length, or a larger one than what is left */
		other = option[0] ^ ND_OPT_SOURCE_LL_ADDR;
		s->has_sllao |= ones_if_zero(other);
		sllao = s->sllao;
		s->sllao = sllao | (pos & ones_if_zero(other | (size ^ 8) | sllao));
		s->option = pos + size;
	}
	return s->option == length;
}

static __always_inline struct checked invalid(enum reason reason)
{
	return (struct checked){ CHECK_FAILED, reason };
}

/*
 * Passed, or the first reason that says otherwise. Fills in the rest of `s`; an answer goes to the source
 * link-layer address option's MAC, else to the frame's source (B8).
 */
static __always_inline struct checked ns_check(struct packet p, struct scratch *s)
{
	void *data = packet_data(p);
	void *data_end = packet_end(p);
	struct ipv6hdr *ip6h = data + (s->frame.l3 & L3_MASK);
	__u32 message = s->frame.message;
	__u64 length = s->frame.length;

	/* can't happen, since ns_parse() has checked it; but the verifier needs to see it here */
	if (is_beyond(ip6h + 1, data_end))
		return invalid(REASON_LENGTH);
	if (s->frame.fragment)
		return invalid(REASON_FRAGMENT); /* A10, RFC 6980 §5 */
	if (length < sizeof(struct nd_msg) || message + length > data_end - data)
		return invalid(REASON_LENGTH); /* A4 */
	if (length > MESSAGE_MAX)
		return (struct checked){ CHECK_TOO_LONG };
	if (ip6h->hop_limit != 255)
		return invalid(REASON_HOP_LIMIT); /* A1 */
	__builtin_memcpy(&s->source, &ip6h->saddr, sizeof(s->source));
	__builtin_memcpy(&s->destination, &ip6h->daddr, sizeof(s->destination));
	at_least(length, 1);
	at_most(length, MESSAGE_MAX);
	if (packet_load(p, message, s->message, length))
		return invalid(REASON_LENGTH);
	if (s->ns.icmp6_code)
		return invalid(REASON_CODE); /* A3 */
	if (!is_checksum_valid(s, length))
		return invalid(REASON_CHECKSUM); /* A2 */
	if (is_multicast(&s->ns.target))
		return invalid(REASON_TARGET); /* A5 */
	if (is_multicast(&s->source) || is_loopback(&s->source))
		return invalid(REASON_SOURCE); /* A9, RFC 4291 §2.7, §2.5.3 */
	if (!options_check(s))
		return invalid(REASON_OPTION_LENGTH); /* A6 */
	if (is_unspecified(&s->source)) {
		if (!is_solicited_node(&s->destination))
			return invalid(REASON_DAD_DESTINATION); /* A7 */
		if (s->has_sllao)
			return invalid(REASON_DAD_SLLAO); /* A8 */
	}
	__builtin_memcpy(s->answer_mac, s->frame.h_source, ETH_ALEN);
	if (s->sllao) {
		const __u8 *mac = &s->message[s->sllao & (MESSAGE_MAX - 8)] + 2;

		if (!is_multicast_ether(mac) && !is_zero_ether(mac))
			__builtin_memcpy(s->answer_mac, mac, ETH_ALEN);
	}
	return (struct checked){ CHECK_PASSED };
}

#endif
