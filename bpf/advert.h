// SPDX-License-Identifier: GPL-2.0-or-later
/* advert: the advertisement of RFC 4861 §7.2.4, in place; ids are those of docs/rules.md, B. */
#ifndef NPD6_ADVERT_H
#define NPD6_ADVERT_H

#include "check.h"

struct advert {
	struct ipv6hdr ip6h;
	struct nd_msg na;
	__u8 opt_type;
	__u8 opt_len;
	__u8 opt_mac[ETH_ALEN];
};

/* An untagged answer as a whole. The padding is no part of it: it has the advertisement begin at a word of the stack. */
struct whole {
	__u8 pad[2];
	__u8 macs[2 * ETH_ALEN];
	__be16 proto;
	struct advert adv;
} __attribute__((aligned(8)));

/* The advertisement's source address; NULL where Python has to choose (B6). */
static __always_inline const struct in6_addr *advert_source(const struct entry *entry, const struct rule *rule,
							    const struct scratch *s)
{
	if (!(rule->flags & RULE_SOURCE_INTERFACE))
		return &s->ns.target;
	if (is_link_local(&s->source))
		return entry->source_flags & SOURCE_LINK_LOCAL ? &entry->link_local : NULL;
	return entry->source_flags & SOURCE_GLOBAL ? &entry->global_address : NULL;
}

/*
 * Solicited, and never Override: "All solicited proxy Neighbor Advertisement messages MUST have the Override flag set to
 * zero" (B3, §7.2.8)
 */
static __always_inline __be32 advert_flags(__u16 rule_flags)
{
	return rule_flags & RULE_ROUTER ? BE32(ND_NA_FLAG_ROUTER | ND_NA_FLAG_SOLICITED) : BE32(ND_NA_FLAG_SOLICITED);
}

/* Writes all that stands behind the tags: an answer to `asker` with this MAC address, by rules with these flags. */
static __always_inline void advert_fill(struct advert *adv, const struct in6_addr *source, const __u8 *mac,
					__u16 rule_flags, const struct in6_addr *asker, const struct in6_addr *target)
{
	__be32 *word;
	__u64 sum;

	adv->ip6h.flow = BE32(0x60000000);
	adv->ip6h.payload_len = BE16(sizeof(*adv) - sizeof(adv->ip6h));
	adv->ip6h.nexthdr = NEXTHDR_ICMP;
	adv->ip6h.hop_limit = 255; /* B7 */
	adv->ip6h.saddr = *source;
	adv->ip6h.daddr = *asker; /* B2; source :: never comes here */
	adv->na.icmp6_type = ND_NEIGHBOR_ADVERT;
	adv->na.icmp6_code = 0;
	adv->na.icmp6_cksum = 0;
	adv->na.flags = advert_flags(rule_flags);
	adv->na.target = *target;              /* B1 */
	adv->opt_type = ND_OPT_TARGET_LL_ADDR; /* B5 */
	adv->opt_len = 1;
	__builtin_memcpy(adv->opt_mac, mac, ETH_ALEN);

	/* The addresses and the message stand side by side: 16 words, and what else the pseudo-header has. */
	word = (__be32 *)&adv->ip6h.saddr;
	sum = BE16(sizeof(*adv) - sizeof(adv->ip6h)) + BE16(NEXTHDR_ICMP);
#pragma unroll
	for (int i = 0; i < 16; i++)
		sum += word[i];
	adv->na.icmp6_cksum = ~csum_fold(sum);
}

/*
 * The same for tc, by the kernel's function. If the program itself wrote into frames, the kernel would have each one
 * copied before it, solicitation or not, that somebody else has as well, such as tcpdump.
 */
static __always_inline bool advert_store(struct packet p, __u32 l3, const struct in6_addr *source, const __u8 *mac,
					 __u16 rule_flags, const struct in6_addr *asker, const struct in6_addr *target,
					 const __u8 *answer_mac)
{
	struct whole whole;

	advert_fill(&whole.adv, source, mac, rule_flags, asker, target);
	__builtin_memcpy(whole.macs, answer_mac, ETH_ALEN);
	__builtin_memcpy(whole.macs + ETH_ALEN, mac, ETH_ALEN);
	if (l3 == sizeof(struct ethhdr)) {
		whole.proto = BE16(ETH_P_IPV6);
		return !packet_store(p, 0, whole.macs, sizeof(whole) - sizeof(whole.pad));
	}
	/* the one that the kernel may have no memory for comes first: behind that, the frame is ours alone */
	return !packet_store(p, l3, &whole.adv, sizeof(whole.adv)) &&
	       !packet_store(p, 0, whole.macs, sizeof(whole.macs));
}

/* Rewrites the frame as the answer. False: nothing was changed. */
static __always_inline bool advert_write(struct packet p, const struct entry *entry, const struct rule *rule,
					 const struct scratch *s)
{
	__u32 l3 = s->frame.l3 & L3_MASK;
	const struct in6_addr *source = advert_source(entry, rule, s);
	void *data, *data_end;
	struct ethhdr *eth;
	struct advert *adv;
	int delta;

	if (!source)
		return false;
	/* From the frame's length, not the payload's: a trailer must go (B9). No SLLAO grows, a Nonce shrinks. */
	delta = (int)(l3 + sizeof(*adv)) - (int)packet_length(p);
	if (delta && packet_resize(p, delta))
		return false;
	if (p.hook == HOOK_TC)
		return advert_store(p, l3, source, entry->mac, rule->flags, &s->source, &s->ns.target, s->answer_mac);

	data = packet_data(p);
	data_end = packet_end(p);
	eth = data;
	adv = data + l3;
	if (is_beyond(eth + 1, data_end) || is_beyond(adv + 1, data_end))
		return false;

	/* The tags between the MAC addresses and the IPv6 header stay as they are (B10). */
	__builtin_memcpy(eth->h_dest, s->answer_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, entry->mac, ETH_ALEN);
	advert_fill(adv, source, entry->mac, rule->flags, &s->source, &s->ns.target);
	return true;
}

#endif
