// SPDX-License-Identifier: GPL-2.0-or-later
/* parse: from the frame to the ICMPv6 message. */
#ifndef NPD6_PARSE_H
#define NPD6_PARSE_H

#include "hook.h"
#include "shared.h"

#define L3_MASK 31       /* an IPv6 header stands at 14, 18 or 22 */
#define HEADERS_MAX 63   /* an IPv6 header at 22, and the type of a message directly behind it */
#define MAX_EXTENSIONS 3 /* headers of a chain: two of options, one fragment header */
#define MAX_OPTIONS_HEADERS 2

/* Hides from clang what it knows of `x`: it would remove a bound that the verifier has to see. */
#define opaque(x) asm volatile("" : "+r"(x))

/* Where things stand in the frame, and what of it is needed after the frame has been rewritten. */
struct frame {
	__u32 l3;        /* offset of the IPv6 header */
	__u32 message;   /* offset of the ICMPv6 message */
	__u32 length;    /* of the message, by the IPv6 payload length */
	__u32 extended;  /* it stands behind extension headers */
	__u16 fragment;  /* one of those is a fragment header */
	__u16 tag_flags; /* of enum event_flag: how many, and whose TPID is 802.1ad's */
	__be16 tci[MAX_TAGS];
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
};

/* All of it is copied, and Linux 6.1 takes no program that reads what was never written. */
_Static_assert(sizeof(struct frame) == 4 * sizeof(__u32) + (2 + MAX_TAGS) * sizeof(__u16) + 2 * ETH_ALEN, "a gap");

/*
 * Whether the frame ends before `end`. On arm64, clang would compare the difference of the two with a size instead,
 * which the verifier takes for any number.
 */
static __always_inline bool is_beyond(void *end, void *data_end)
{
	opaque(end);
	return end > data_end;
}

/*
 * Walks the chain of extension headers from f->message on. Hop-by-hop options stand only directly behind the
 * IPv6 header (H2). False: this program can't see an ICMPv6 message behind them.
 */
static __always_inline bool extensions_parse(struct packet p, struct frame *f, __u8 nexthdr)
{
	int options = 0;

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct ipv6_opt_hdr opt;
		__u32 size;

		if (nexthdr == NEXTHDR_ICMP)
			break;
		/* a copy, since packet pointers at variable offsets make the verifier forget what it knew */
		if (packet_load(p, f->message, &opt, sizeof(opt)))
			return false;
		if (nexthdr == NEXTHDR_FRAGMENT) {
			if (opt.frag_off & BE16(FRAGMENT_OFFSET))
				return false;
			f->fragment = 1;
			size = sizeof(opt);
		} else if (nexthdr == NEXTHDR_DEST || (nexthdr == NEXTHDR_HOP && i == 0)) {
			if (++options > MAX_OPTIONS_HEADERS)
				return false;
			size = (opt.hdrlen + 1) * 8;
		} else {
			return false;
		}
		if (f->length < size)
			return false;
		f->length -= size;
		f->message += size;
		nexthdr = opt.nexthdr;
	}
	f->extended = 1;
	return nexthdr == NEXTHDR_ICMP;
}

/*
 * Brings a frame together of which only the first bytes can be read in place, if it may be a solicitation. Of others, a
 * few bytes are read.
 */
static __always_inline void headers_gather(struct packet p)
{
	__u32 l3 = sizeof(struct ethhdr);
	__be16 proto;
	__u8 nexthdr;

	if (packet_load(p, l3 - sizeof(proto), &proto, sizeof(proto)))
		return;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (proto != BE16(ETH_P_8021Q) && proto != BE16(ETH_P_8021AD))
			break;
		l3 += sizeof(struct vlan_hdr);
		if (packet_load(p, l3 - sizeof(proto), &proto, sizeof(proto)))
			return;
	}
	if (proto != BE16(ETH_P_IPV6) || packet_load(p, l3 + NEXTHDR_AT, &nexthdr, sizeof(nexthdr)))
		return;
	if (nexthdr == NEXTHDR_ICMP || nexthdr == NEXTHDR_HOP || nexthdr == NEXTHDR_DEST || nexthdr == NEXTHDR_FRAGMENT)
		packet_gather(p);
}

/* Takes a tag beside the frame for the outermost one. False: with it, the frame has too many. */
static __always_inline bool tag_put_first(struct frame *f, struct beside tag)
{
	if (!tag.is_there)
		return true;
	if ((f->tag_flags & EVENT_TAG_COUNT) == MAX_TAGS)
		return false;
	f->tci[1] = f->tci[0];
	f->tci[0] = tag.tci;
	if (f->tag_flags & EVENT_OUTER_8021AD)
		f->tag_flags ^= EVENT_OUTER_8021AD | EVENT_INNER_8021AD;
	if (tag.proto == BE16(ETH_P_8021AD))
		f->tag_flags |= EVENT_OUTER_8021AD;
	f->tag_flags++;
	return true;
}

/* True for an ICMPv6 message of type 135 (H1); fills in all of `f`. False: it is none, and the frame is passed. */
static __always_inline bool ns_parse(struct packet p, void *data, void *data_end, struct frame *f)
{
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6h;
	void *nh = eth + 1;
	__be16 proto;
	__u8 type;

	/* no more than this: of what leaves here, nothing is written, and the rest is set before it is read */
	f->extended = f->fragment = f->tag_flags = 0;
	f->tci[0] = f->tci[1] = 0;
	if (is_beyond(nh, data_end))
		return false;
	proto = eth->h_proto;
	/* counted along, since the difference of two packet pointers would be any number to the verifier */
	f->l3 = sizeof(*eth);

#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		struct vlan_hdr *vlh = nh;

		if (proto != BE16(ETH_P_8021Q) && proto != BE16(ETH_P_8021AD))
			break;
		nh = vlh + 1;
		if (is_beyond(nh, data_end))
			return false;
		if (proto == BE16(ETH_P_8021AD))
			f->tag_flags |= EVENT_OUTER_8021AD << i;
		f->tag_flags++;
		f->l3 += sizeof(*vlh);
		f->tci[i] = vlh->h_vlan_TCI;
		proto = vlh->h_vlan_encapsulated_proto;
	}
	if (proto != BE16(ETH_P_IPV6))
		return false;

	ip6h = nh;
	nh = ip6h + 1;
	if (is_beyond(nh, data_end) || (ip6h->flow & BE32(0xf0000000)) != BE32(0x60000000))
		return false;
	if (ip6h->nexthdr == NEXTHDR_ICMP) {
		/* nearly all traffic that comes this far ends here, by one byte */
		if (is_beyond(nh + 1, data_end) || *(__u8 *)nh != ND_NEIGHBOR_SOLICIT || !ip6h->payload_len)
			return false;
		f->message = f->l3 + sizeof(*ip6h);
		f->length = be16_to_cpu(ip6h->payload_len);
	} else if (ip6h->nexthdr == NEXTHDR_HOP || ip6h->nexthdr == NEXTHDR_DEST || ip6h->nexthdr == NEXTHDR_FRAGMENT) {
		f->message = f->l3 + sizeof(*ip6h);
		f->length = be16_to_cpu(ip6h->payload_len);
		if (!extensions_parse(p, f, ip6h->nexthdr) || !f->length)
			return false;
		if (packet_load(p, f->message, &type, sizeof(type)) || type != ND_NEIGHBOR_SOLICIT)
			return false;
	} else {
		return false;
	}
	__builtin_memcpy(f->h_dest, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(f->h_source, eth->h_source, ETH_ALEN);
	return true;
}

/* The same of a frame with a tag beside it, or in pieces, as tc has them. All behind this reads the frame in place. */
static __always_inline bool ns_find(struct packet p, struct frame *f)
{
	/* read once: of most frames, that and one comparison is all that tc takes over XDP */
	void *data = packet_data(p);
	void *data_end = packet_end(p);

	if (p.hook == HOOK_TC && is_beyond(data + HEADERS_MAX, data_end) && is_scattered(p, data, data_end)) {
		headers_gather(p);
		data = packet_data(p);
		data_end = packet_end(p);
	}
	return ns_parse(p, data, data_end, f) && tag_put_first(f, packet_beside(p)) &&
	       (!is_scattered(p, packet_data(p), packet_end(p)) || packet_gather(p));
}

#endif
