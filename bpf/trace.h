// SPDX-License-Identifier: GPL-2.0-or-later
/* trace: what `npd6-xdp trace` wants to see of a solicitation, and the record that it gets, as far as no map is asked. */
#ifndef NPD6_TRACE_H
#define NPD6_TRACE_H

#include "check.h"

/* What isn't decided when the record is written: Python finds it, or hidden_tag(). */
#define TRACE_FOUND_LATER                                                                                  \
	(1 << OUTCOME_ANSWERED_PYTHON | 1 << OUTCOME_KERNEL | 1 << OUTCOME_ABSENT | 1 << OUTCOME_PENDING | \
	 1 << OUTCOME_DAD | 1 << OUTCOME_RATE_LIMITED | 1 << OUTCOME_MONITORED | 1 << OUTCOME_LOST |       \
	 1 << OUTCOME_FAILED | 1 << OUTCOME_STANDBY)

/* Whether the filter lets a frame through by its VLAN ids (H1: VID 0 names none) and the MAC that it came from. */
static __always_inline bool is_frame_traced(const struct trace_filter *filter, const struct frame *f)
{
	__u16 outer = be16_to_cpu(f->tci[0]) & VLAN_VID_MASK;
	__u16 inner = be16_to_cpu(f->tci[1]) & VLAN_VID_MASK;

	if (filter->outer != VLAN_ANY) {
		if (!outer) {
			outer = inner;
			inner = 0;
		}
		if ((outer ^ filter->outer) | (inner ^ filter->inner))
			return false;
	}
	return !filter->by_mac || is_same_ether(f->h_source, filter->mac);
}

static __always_inline bool is_within(const struct in6_addr *a, const struct in6_addr *prefix,
				      const struct in6_addr *mask)
{
	return !(((a->qword[0] ^ prefix->qword[0]) & mask->qword[0]) |
		 ((a->qword[1] ^ prefix->qword[1]) & mask->qword[1]));
}

/*
 * Reads the addresses and lets the filter decide by them. A frame that ends before its target has none, and neither a
 * prefix of targets nor anything else is found in it.
 */
static __always_inline bool are_addresses_traced(struct xdp_md *ctx, const struct trace_filter *filter,
						 const struct frame *f, struct trace_record *record)
{
	__u32 l3 = f->l3 & L3_MASK;

	if (bpf_xdp_load_bytes(ctx, l3 + SOURCE_AT, &record->source, sizeof(record->source)))
		return false; /* can't happen: ns_parse() has checked it */
	if (bpf_xdp_load_bytes(ctx, f->message + TARGET_AT, &record->target, sizeof(record->target))) {
		if (filter->target_mask.qword[0] | filter->target_mask.qword[1])
			return false;
		__builtin_memset(&record->target, 0, sizeof(record->target));
	}
	return is_within(&record->target, &filter->target, &filter->target_mask) &&
	       is_within(&record->source, &filter->source, &filter->source_mask);
}

/* Copies the frame before anything is written over it; of one that is longer than that, the first TRACE_FRAME_MAX bytes. */
static __always_inline bool trace_copy(struct xdp_md *ctx, struct trace_record *record)
{
	__u64 size = ctx->data_end - ctx->data;

	record->size = size;
	opaque(size);
	at_least(size, 1);
	at_most(size, TRACE_FRAME_MAX);
	record->kept = size;
	return !bpf_xdp_load_bytes(ctx, 0, record->frame, size);
}

#endif
