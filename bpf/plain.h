// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * plain: the solicitation that nearly all are, found, checked and answered in place: no copy, and one sum for its checksum
 * and the answer's. What isn't plain, or may be wrong in any way, is left to parse.h, check.h and advert.h.
 */
#ifndef NPD6_PLAIN_H
#define NPD6_PLAIN_H

#include "trace.h"

#define FILTER_FACTOR 0x9e3779b97f4a7c15ULL /* npd6_xdp/core/exact_filter.py has the same */
#define FILTER_SHIFT 58                     /* leaves the number of a bit of 64 */

/* What such a frame has behind its tags: a source link-layer address option of one unit, and nothing behind that. */
struct plain_message {
	struct ipv6hdr ip6h;
	struct nd_msg ns;
	__be32 option[2];
};
#define PLAIN_LENGTH (sizeof(struct plain_message) - sizeof(struct ipv6hdr))

/* An IPv6 header's first 8 bytes, but for traffic class and flow label: version, length, next header, hop limit (A1). */
#define PLAIN_HEADER_MASK BE64(0xf0000000ffffffffULL)
#define PLAIN_HEADER BE64(0x6000000000000000ULL | PLAIN_LENGTH << 16 | NEXTHDR_ICMP << 8 | 255)

/* Where things stand in a frame, and what of the checksum serves the answer's. */
struct plain {
	struct ethhdr *eth;
	struct plain_message *message;
	__u32 l3;   /* offset of the IPv6 header */
	__u32 tags; /* in the frame and beside it */
	__be16 tci[MAX_TAGS];
	__u64 source_sum; /* of 32-bit words */
	__u64 target_sum;
};

enum plainness {
	PLAIN_NOTHING, /* it is no solicitation, and passed: nearly all frames end here */
	PLAIN_OTHER,   /* it may be one that isn't plain */
	PLAIN_NS,
};

/* An address's 32-bit words, added up. */
static __always_inline __u64 address_sum(const struct in6_addr *a)
{
	return (__u64)a->dword[0] + a->dword[1] + a->dword[2] + a->dword[3];
}

/* What an answer needs of its entry: copies, since in its map another may be written over it. */
struct answerer {
	int id;
	__u16 flags;
	__u8 mac[ETH_ALEN];
} __attribute__((aligned(8)));

static __always_inline struct answerer answerer_of(const struct entry *entry)
{
	struct answerer by = { .id = entry->id, .flags = entry->flags };

	*(__u16 *)by.mac = *(__u16 *)entry->mac; /* as plain_write() reads them */
	*(__u32 *)(by.mac + 2) = *(__u32 *)(entry->mac + 2);
	return by;
}

/* Whether two MAC addresses differ, by words: a byte each would be four times as many instructions. */
static __always_inline __u32 mac_difference(const __u8 *a, const __u8 *b)
{
	return (*(__u32 *)a ^ *(__u32 *)b) | (__u32)(*(__u16 *)(a + 4) ^ *(__u16 *)(b + 4));
}

/* Puts the tag that tc has beside the frame before those in it. False: with it, the frame has too many. */
static __always_inline bool plain_put_first(struct plain *f, struct beside tag)
{
	if (!tag.is_there)
		return true;
	if (f->tags == MAX_TAGS)
		return false;
	f->tci[1] = f->tci[0];
	f->tci[0] = tag.tci;
	f->tags++;
	return true;
}

/*
 * Whether a message is valid (docs/rules.md, A) and of a kind whose answer goes to the MAC address in its option (B8).
 * Of addresses that are rules of their own, such as :: and ::1, no frame is plain: none of ::/96, no group, no
 * link-local target (C2, C3).
 */
static __always_inline bool is_plain_valid(struct plain *f)
{
	const struct plain_message *m = f->message;
	const struct in6_addr *source = &m->ip6h.saddr, *target = &m->ns.target;
	const __be32 *ns = (const __be32 *)&m->ns;
	const __u8 *mac = (const __u8 *)m->option + 2;
	__u64 sum;

	if ((*(const __u64 *)&m->ip6h & PLAIN_HEADER_MASK) != PLAIN_HEADER)
		return false;
	if (m->ns.icmp6_code || *(const __be16 *)m->option != BE16(ND_OPT_SOURCE_LL_ADDR << 8 | 1))
		return false;
	if (is_multicast(source) || !(source->qword[0] | source->dword[2]))
		return false;
	if (is_multicast(target) || !(target->qword[0] | target->dword[2]) || is_link_local(target))
		return false;
	if (is_multicast_ether(mac) || !(*(const __be16 *)mac | m->option[1]))
		return false;
	f->source_sum = address_sum(source);
	f->target_sum = address_sum(target);
	sum = f->source_sum + address_sum(&m->ip6h.daddr) + ns[0] + ns[1] + f->target_sum + m->option[0] +
	      m->option[1] + BE16(PLAIN_LENGTH) + BE16(NEXTHDR_ICMP);
	return !(__u16)~csum_fold(sum); /* A2 */
}

/* Finds the solicitation in a frame, if that has nothing else in it. What is none leaves as early as by ns_parse(). */
static __always_inline enum plainness plain_find(struct packet p, struct plain *f)
{
	void *data = packet_data(p);
	void *data_end = packet_end(p);
	struct plain_message *m;
	void *nh;
	__be16 proto;
	__u8 nexthdr;

	f->eth = data;
	nh = f->eth + 1;
	if (is_beyond(nh, data_end))
		return PLAIN_OTHER;
	proto = f->eth->h_proto;
	f->l3 = sizeof(struct ethhdr);
	f->tags = 0;
	f->tci[0] = f->tci[1] = 0;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		struct vlan_hdr *vlh = nh;

		if (proto != BE16(ETH_P_8021Q) && proto != BE16(ETH_P_8021AD))
			break;
		nh = vlh + 1;
		if (is_beyond(nh, data_end))
			return PLAIN_OTHER;
		f->l3 += sizeof(*vlh);
		f->tags++;
		f->tci[i] = vlh->h_vlan_TCI;
		proto = vlh->h_vlan_encapsulated_proto;
	}
	if (proto != BE16(ETH_P_IPV6))
		return PLAIN_NOTHING;
	m = nh;
	if (is_beyond(&m->ns.icmp6_code, data_end))
		return PLAIN_OTHER;
	nexthdr = m->ip6h.nexthdr;
	if (nexthdr != NEXTHDR_ICMP)
		return nexthdr == NEXTHDR_HOP || nexthdr == NEXTHDR_DEST || nexthdr == NEXTHDR_FRAGMENT ? PLAIN_OTHER
													: PLAIN_NOTHING;
	if (m->ns.icmp6_type != ND_NEIGHBOR_SOLICIT)
		return PLAIN_NOTHING;
	/* to the last byte: a trailer would have to go (B9) */
	if (is_beyond(m + 1, data_end) || !is_beyond((void *)(m + 1) + 1, data_end) || is_scattered(p, data, data_end))
		return PLAIN_OTHER;
	f->message = m;
	return is_plain_valid(f) && plain_put_first(f, packet_beside(p)) ? PLAIN_NS : PLAIN_OTHER;
}

/* Whether a filter of exact addresses says that this is surely none of them. */
static __always_inline bool is_filtered_out(__u64 filter, const struct in6_addr *target)
{
	return !(filter >> ((target->qword[0] ^ target->qword[1]) * FILTER_FACTOR >> FILTER_SHIFT) & 1);
}

/* As is_frame_ignored(), but for C9: the answer's MAC address is one station's. */
static __always_inline bool is_plain_ignored(const struct plain *f, const struct entry *entry)
{
	const struct ethhdr *eth = f->eth;

	return !mac_difference(eth->h_source, entry->mac) || !mac_difference(eth->h_source, entry->port_mac) ||
	       (!is_multicast_ether(eth->h_dest) && mac_difference(eth->h_dest, entry->mac) &&
		mac_difference(eth->h_dest, entry->port_mac));
}

/* Writes the advertisement of this MAC address over the solicitation, for XDP: what advert_write() writes. */
static __always_inline void plain_write(const struct plain *f, const __u8 *mac, __u16 rule_flags)
{
	struct plain_message *m = f->message;
	__u8 *option = (__u8 *)m->option;
	__be32 flags = advert_flags(rule_flags);

	*(__u16 *)f->eth->h_dest = *(__u16 *)(option + 2); /* the asker's, from its option */
	*(__u32 *)(f->eth->h_dest + 2) = m->option[1];
	*(__u16 *)f->eth->h_source = *(__u16 *)mac;
	*(__u32 *)(f->eth->h_source + 2) = *(__u32 *)(mac + 2);
	*(__u64 *)&m->ip6h = PLAIN_HEADER; /* traffic class and flow label are 0 */
	m->ip6h.daddr = m->ip6h.saddr;
	m->ip6h.saddr = m->ns.target;
	m->ns.icmp6_type = ND_NEIGHBOR_ADVERT;
	m->ns.flags = flags;
	option[0] = ND_OPT_TARGET_LL_ADDR;
	*(__u16 *)(option + 2) = *(__u16 *)mac;
	m->option[1] = *(__u32 *)(mac + 2);
	/* its source and target are the target, its destination the source */
	m->ns.icmp6_cksum = ~csum_fold(f->source_sum + 2 * f->target_sum + flags + m->option[0] + m->option[1] +
				       BE16(ND_NEIGHBOR_ADVERT << 8) + BE16(PLAIN_LENGTH) + BE16(NEXTHDR_ICMP));
}

#endif
