// SPDX-License-Identifier: GPL-2.0-or-later
/* trace: what `npd6-xdp trace` wants to see of a solicitation, and the record that it gets, as far as no map is asked. */
#ifndef NPD6_TRACE_H
#define NPD6_TRACE_H

#include "advert.h"

/* An untagged solicitation with a source link-layer address option, as nearly all are. */
struct plain_frame {
	struct ethhdr eth;
	struct ipv6hdr ip6h;
	struct nd_msg ns;
	__u8 option[8];
} __attribute__((packed));
#define BEHIND_TAG (2 * ETH_ALEN + 4) /* where in a frame something stands behind its first tag */
#define PLAIN_MESSAGE (sizeof(struct ethhdr) + sizeof(struct ipv6hdr))

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
 * Whether the filter lets a frame through by its addresses. One that ends before its target has none, and no prefix of
 * targets finds it. Read in place where nothing stands in between, since most of what comes isn't wanted.
 */
static __always_inline bool are_addresses_traced(struct packet p, const struct trace_filter *filter,
						 const struct frame *f)
{
	void *data = packet_data(p);
	void *data_end = packet_end(p);
	struct ipv6hdr *ip6h = data + (f->l3 & L3_MASK);
	struct nd_msg *ns = (void *)(ip6h + 1);
	struct in6_addr target;

	if (is_beyond(ip6h + 1, data_end))
		return false; /* can't happen: ns_parse() has checked it */
	if (!is_within(&ip6h->saddr, &filter->source, &filter->source_mask))
		return false;
	if (!(filter->target_mask.qword[0] | filter->target_mask.qword[1]))
		return true;
	if (!f->extended)
		return !is_beyond(ns + 1, data_end) && is_within(&ns->target, &filter->target, &filter->target_mask);
	return !packet_load(p, f->message + TARGET_AT, &target, sizeof(target)) &&
	       is_within(&target, &filter->target, &filter->target_mask);
}

/* Copies a frame with the tag that stands beside it, to where that stood on the wire. */
static __always_inline bool trace_copy_tagged(struct packet p, struct beside tag, struct trace_record *record)
{
	__u64 rest = packet_length(p) - 2 * ETH_ALEN;
	struct {
		__be16 proto;
		__be16 tci;
	} on_wire = { tag.proto, tag.tci };

	record->size = rest + BEHIND_TAG;
	opaque(rest);
	at_least(rest, 1);
	at_most(rest, TRACE_FRAME_MAX - BEHIND_TAG);
	record->kept = rest + BEHIND_TAG;
	__builtin_memcpy(record->frame + 2 * ETH_ALEN, &on_wire, sizeof(on_wire));
	return !packet_load(p, 0, record->frame, 2 * ETH_ALEN) &&
	       !packet_load(p, 2 * ETH_ALEN, record->frame + BEHIND_TAG, rest);
}

/*
 * Copies the frame before anything is written over it; of one that is longer than that, the first TRACE_FRAME_MAX bytes.
 * A plain one is copied in place, in a quarter of the time that the kernel's function takes.
 */
static __always_inline bool trace_copy(struct packet p, const struct frame *f, struct trace_record *record)
{
	void *data = packet_data(p);
	void *data_end = packet_end(p);
	struct plain_frame *plain = data;
	struct beside tag = packet_beside(p);
	__u64 size = data_end - data;

	record->size = size;
	if (!tag.is_there && !is_beyond(plain + 1, data_end) && size == sizeof(*plain) && f->message == PLAIN_MESSAGE) {
		__builtin_memcpy(record->frame, plain, sizeof(*plain));
		record->source = plain->ip6h.saddr;
		record->target = plain->ns.target;
		record->kept = sizeof(*plain);
		return true;
	}
	opaque(size);
	at_least(size, 1);
	at_most(size, TRACE_FRAME_MAX);
	record->kept = size;
	if (tag.is_there ? !trace_copy_tagged(p, tag, record) : packet_load(p, 0, record->frame, size))
		return false;
	if (packet_load(p, (f->l3 & L3_MASK) + SOURCE_AT, &record->source, sizeof(record->source)))
		return false;
	if (packet_load(p, f->message + TARGET_AT, &record->target, sizeof(record->target)))
		__builtin_memset(&record->target, 0, sizeof(record->target));
	return true;
}

/* Copies the advertisement that a frame has become: its MAC addresses, and what stands behind its tags, which are the
 * solicitation's. */
static __always_inline void trace_advert(struct packet p, const struct frame *f, struct trace_record *record)
{
	void *data = packet_data(p);
	void *data_end = packet_end(p);
	struct ethhdr *eth = data;
	struct advert *adv = data + (f->l3 & L3_MASK);

	if (is_beyond(eth + 1, data_end) || is_beyond(adv + 1, data_end))
		return; /* can't happen: advert_write() has checked it */
	__builtin_memcpy(record->advert_macs, eth, sizeof(record->advert_macs));
	__builtin_memcpy(record->advert, adv, sizeof(*adv));
	record->is_answered = 1;
}

#endif
