// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ns_filter: finds the Neighbor Solicitations among a port's frames, checks them (RFC 4861 §7.1.1), matches
 * their targets against the rules, and answers them in place or hands them up to Python.
 *
 * The contract:
 *  - A frame that isn't an NS is passed with no map touched.
 *  - An NS gets exactly one outcome. Those decided here are counted here, per CPU; an NS that went up as an
 *    event is counted by Python (npd6_xdp/core/responder.py).
 *  - Fail open: whatever the program isn't sure of, it passes to the kernel untouched. It never aborts.
 *  - XDP_TX carries the advertisement, XDP_DROP means that the NS is ours and was handed up (or lost), and
 *    all else is XDP_PASS; so is a multicast NS that isn't surely ours, where others live behind the port.
 *
 * Python loads this file through bcc (npd6_xdp/system/datapath.py), which sizes the maps with -D. The structs
 * that both sides see are mirrored there and in npd6_xdp/core/event.py; a test compares sizes and enums.
 *
 * Read downward: constants, structs, maps, then one solicitation's way: parse, check, match, answer, punt,
 * decide which of the two, and the entry at the end.
 */

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* --- constants ------------------------------------------------------------------------------------- */

/* Multi-byte constants of the wire are compared in network order, so they are spelled swapped. */
#define BE16(x) ((__be16)__builtin_bswap16(x))
#define BE32(x) ((__be32)__builtin_bswap32(x))

#define ETH_ALEN 6
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_IPV6 0x86dd
#define VLAN_VID_MASK 0x0fff
#define VLAN_ANY 0xffff
#define LENGTHS 8		/* a hash look-up each: 4 at rest, and those of two tables while one follows another */
#define NO_LENGTH 255

#define NEXTHDR_HOP 0
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_ICMP 58
#define NEXTHDR_DEST 60
#define FRAGMENT_OFFSET 0xfff8

#define ND_NEIGHBOR_SOLICIT 135
#define ND_NEIGHBOR_ADVERT 136
#define ND_NA_FLAG_ROUTER 0x80000000
#define ND_NA_FLAG_SOLICITED 0x40000000
#define ND_OPT_SOURCE_LL_ADDR 1
#define ND_OPT_TARGET_LL_ADDR 2

#define AF_INET6 10
#define LOOPBACK_IFINDEX 1	/* lo's, in every network namespace */

#define CHECKSUM_AT 2		/* in an ICMPv6 message */

#define MAX_TAGS 2
#define L3_MASK 31		/* an IPv6 header stands at 14, 18 or 22 */
#define TAGGED_MAX 16384	/* checksums that are told from one another */
#define TAGGED_SHIFT 28		/* nanoseconds to units in which a frame gets from here to the taps: 0.27 s */
#define MAX_EXTENSIONS 3	/* headers of a chain: two of options, one fragment header */
#define MAX_OPTIONS_HEADERS 2
#define MESSAGE_MAX 4096	/* bytes of ICMPv6 that are looked at; a longer NS is left to the kernel */
#define CSUM_CHUNK 512		/* the most that bpf_csum_diff() takes before Linux 6.13 */

/* Hides what is known of `x` from clang, which else folds away a bound that the verifier has to see. */
#define opaque(x) asm volatile("" : "+r"(x))

/*
 * Bounds for a __u64 in the very register that goes on: clang compares one copy and passes on another, and
 * before Linux 6.3 the verifier may not know that the two are the same.
 */
#define at_least(x, least) asm volatile("if %0 >= %1 goto +1\n\t%0 = %1" : "+r"(x) : "i"(least))
#define at_most(x, most) asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(x) : "i"(most))

/* What becomes of a solicitation: numbers of npd6_xdp/core/verdict.py Outcome. */
enum outcome {
	OUTCOME_ANSWERED_XDP,
	OUTCOME_ANSWERED_PYTHON,
	OUTCOME_KERNEL,
	OUTCOME_ABSENT,
	OUTCOME_PENDING,
	OUTCOME_OWN,
	OUTCOME_IGNORED,
	OUTCOME_UNMATCHED,
	OUTCOME_DAD,
	OUTCOME_INVALID,
	OUTCOME_RATE_LIMITED,
	OUTCOME_MONITORED,
	OUTCOME_LOST,
	OUTCOME_FAILED,
	OUTCOMES,
	HANDED_UP,	/* to Python, which answers it and counts */
	UNDECIDED,	/* handed up, too, and Python doesn't know yet whether the target is there */
	HELD,		/* hidden_tag() is to look first: it hands up what this program would have answered or handed up */
	DAD_WITHHELD,	/* OUTCOME_DAD, and the kernel must not see it: its proxy entry would defend the target */
};

/* Why it is invalid, in the order of the checks: numbers of npd6_xdp/core/verdict.py Reason. */
enum reason {
	REASON_FRAGMENT,
	REASON_LENGTH,
	REASON_HOP_LIMIT,
	REASON_CODE,
	REASON_CHECKSUM,
	REASON_TARGET,
	REASON_SOURCE,
	REASON_OPTION_LENGTH,
	REASON_DAD_DESTINATION,
	REASON_DAD_SLLAO,
	REASONS,
	/* not counted as reasons: */
	VALID,
	TOO_LONG,
};

/* How a target is decided: numbers of npd6_xdp/core/rules.py Decision. */
enum decision {
	DECISION_OWN,		/* the ingress interface's own address: the kernel answers */
	DECISION_NEXT_HOP,	/* a router behind the ingress interface: never impersonated */
	DECISION_IGNORE,
	DECISION_STATIC,	/* always there */
	DECISION_ROUTE,		/* there if the routing table leads to it, out of another interface, or here */
	DECISION_NEIGHBOUR,	/* there if `known` has it; Python has others resolved */
	DECISION_KERNEL,	/* the kernel's own proxy answers once `known` has it; Python adds others */
};

/* Flags of a rule: npd6_xdp/core/rules.py RuleFlag. */
enum rule_flag {
	RULE_ROUTER = 1,		/* R = 1 in the advertisement */
	RULE_DEFEND = 2,		/* answer DAD probes for present targets */
	RULE_SOURCE_INTERFACE = 4,	/* source: the interface's address, not the target */
	RULE_VIA = 8,			/* only out of the interfaces of the rule's group */
};

/* Who answers on an entry: npd6_xdp/core/rules.py. */
enum datapath {
	DATAPATH_HYBRID,
	DATAPATH_PYTHON,
	DATAPATH_MONITOR,
};

/* What there is to know of the port behind a slot: npd6_xdp/core/rules.py SlotFlag. */
enum slot_flag {
	SLOT_SHARED = 1,	/* others live behind it: a bridge's port, or one with macvlan or ipvlan devices */
	SLOT_TAPPED = 2,	/* tags may stand beside its frames: hidden_tag() looks at what is passed */
	SLOT_GUARDED = 4,	/* and it is likely that some do: what seems to be untagged isn't answered before that */
	SLOT_SAMPLED = 8,	/* they might: so for one in a while */
	SLOT_TAGLESS = 16,	/* no tag was seen on the port so far: hidden_tag() is to tell of any */
	SLOT_HEARS = 32,	/* hosts that are looked for live behind it: Python is told of who is new there */
};

/* What of the machine's routes bpf_fib_lookup() can't tell of: npd6_xdp/core/routes.py RoutingFlag. */
enum routing_flag {
	ROUTING_UNFOUND = 1,	/* what it doesn't find may be there: prefixes delivered here, throw routes */
	ROUTING_ALL = 2,	/* rules pass over routes (suppress_prefixlength), and it doesn't */
	ROUTING_SOURCE = 4,	/* rules or routes go by the source */
	ROUTING_NOWHERE = 8,	/* some interfaces lead nowhere: the group GROUP_NOWHERE of `vias` */
};

/* Whether a target is routed. */
enum presence {
	PRESENCE_ABSENT,
	PRESENCE_THERE,
	PRESENCE_UNKNOWN,	/* only the kernel can tell, and Python ask it */
};

/* Tags of an event: npd6_xdp/core/event.py. */
enum event_tags {
	EVENT_TAG_COUNT = 3,		/* mask: how many */
	EVENT_OUTER_8021AD = 4,		/* the first tag's TPID is 0x88a8, not 0x8100 */
	EVENT_INNER_8021AD = 8,
	/* and what else Python has to know: */
	EVENT_MISS = 16,		/* nobody here knows of the target: it is to be resolved, added, or asked about */
	EVENT_STALE = 32,		/* it has, but nobody knows whether that still holds: it is to be probed */
	EVENT_ANSWERED = 64,		/* answered and counted already */
	EVENT_HEARD = 128,		/* who asks is new here, or has another MAC address: the kernel isn't told by this */
};

/* Flags of a known target: npd6_xdp/core/rules.py KnownFlag. */
enum known_flag {
	KNOWN_STALE = 1,	/* the neighbour table's word for it is old; cleared once Python has been told */
};

/* --- structs --------------------------------------------------------------------------------------- */

struct in6_addr {
	union {
		__u8 byte[16];
		__be16 word[8];
		__be32 dword[4];
		__u64 qword[2];
	};
};

struct ethhdr {
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
	__be16 h_proto;
};

struct vlan_hdr {
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};

struct ipv6hdr {
	__be32 flow;		/* version, traffic class, flow label */
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	struct in6_addr saddr;
	struct in6_addr daddr;
};

struct ipv6_opt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;		/* in units of 8 bytes, not counting the first 8; a fragment header's is reserved */
	__be16 frag_off;	/* of a fragment header only */
	__be32 identification;
};

struct nd_msg {
	__u8 icmp6_type;
	__u8 icmp6_code;
	__sum16 icmp6_cksum;
	__be32 flags;		/* NS: reserved */
	struct in6_addr target;
};

/* Where things stand in the frame, and what of it is needed after the frame has been rewritten. */
struct frame {
	__u32 l3;		/* offset of the IPv6 header */
	__u32 message;		/* offset of the ICMPv6 message */
	__u32 length;		/* of the message, by the IPv6 payload length */
	__u16 extended;		/* it stands behind extension headers */
	__u16 fragment;		/* one of those is a fragment header */
	__u16 tags;		/* enum event_tags */
	__be16 tci[MAX_TAGS];
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
};

struct rule {
	__u32 id;		/* index of rule_counters */
	__u16 decision;
	__u16 flags;
	__u32 group;		/* of `vias` and `known` */
};

/*
 * What one solicitation leaves behind on its way: the message beside its pseudo-header's addresses (one run of
 * bytes for the checksum), and what was found out. It is in a map, not on the stack, because the verifier
 * doesn't track what a map holds: else it would walk the rest of the program once more for each combination of
 * tags, extension headers, length and options, and give up.
 */
struct scratch {
	struct in6_addr source;
	struct in6_addr destination;
	union {
		struct nd_msg ns;
		__u8 message[2 * MESSAGE_MAX + 8];
	};
	struct frame frame;
	/* volatile, or clang would keep them in registers through the loop over the options after all */
	volatile __u32 option;		/* offset in `message` */
	volatile __u32 has_sllao;	/* there is a source link-layer address option, of whatever length */
	volatile __u32 sllao;		/* offset in `message` of the one that counts, 0 for none */
	volatile __u32 presence;	/* enum presence, by the routing table */
	volatile __u32 tags;		/* enum event_tags: what Python has to know */
	volatile __u32 is_held;		/* it may have a tag that doesn't show, and is to be held until that is known */
	struct rule rule;		/* the one that covers the target, from whichever map */
	__u8 eth_destination[ETH_ALEN];	/* where an answer goes */
};

/* VLAN ids, outermost first; 0 is none, VLAN_ANY stands for all frames that no other key speaks for. */
struct slot_key {
	__u32 ifindex;
	__u16 outer;
	__u16 inner;
};

/* One [[interface]] entry on one port: what its frames are matched against, and how they are answered. */
struct slot {
	__u32 entry;		/* scope of addresses and prefixes, index of entry_counters */
	__u8 mac[ETH_ALEN];	/* what is advertised: the port's, or its bridge's */
	__u8 datapath;
	__u8 sources;		/* enum slot_sources */
	__u32 l3_ifindex;	/* the interface that the kernel takes the frames to come in by */
	struct in6_addr link_local;
	struct in6_addr global;
	__u64 source_cost;	/* nanoseconds that an event of one source MAC takes of its budget; 0: no limit */
	__u16 collect;		/* remember the targets */
	__u16 trie;		/* prefixes are in the trie, not in `lines` by `lengths` */
	__u8 port_mac[ETH_ALEN];	/* the port's own; the same, but on a bridge's port */
	__u16 flags;		/* enum slot_flag */
	__u8 lengths[LENGTHS];	/* of the entry's prefixes, the longest first; NO_LENGTH behind the last */
	__u32 looked;		/* when one was held last of those that seem untagged: seconds, about */
};

/* Which of a slot's two source addresses can be used as they are (for rules with RULE_SOURCE_INTERFACE). */
enum slot_sources {
	SOURCE_LINK_LOCAL = 1,	/* link_local is what a link-local asker gets */
	SOURCE_GLOBAL = 2,	/* global is what any other asker gets; clear: Python chooses among several */
};

/* A line of the flat table: an address (128 bits), or a prefix of an entry that has many, of few lengths. */
struct line_key {
	__u32 entry;
	__u32 length;		/* in bits */
	struct in6_addr address;
};

/* Scoped by an entry, or by a rule's group. */
struct address_key {
	__u32 scope;
	__u32 zero;		/* where the compiler would pad: a key's bytes all count */
	struct in6_addr address;
};

struct prefix_key {
	__u32 prefixlen;	/* in bits, those of `entry` included */
	__u32 entry;
	struct in6_addr address;
};

/* A target that is there (neighbour), or that the kernel's proxy answers for (kernel). */
struct known {
	__u32 flags;		/* enum known_flag */
	__u32 asked;		/* CLOCK_MONOTONIC, seconds: when it was last asked for */
};

#define GROUP_NOWHERE 0		/* no rule's */

struct via_key {
	__u32 group;
	__u32 ifindex;
};

/* One MAC on one entry: of a frame's source in `sources`, of where the answer goes in `crowding` (zeros: of all). */
struct source_key {
	__u32 entry;
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

/* A target that was asked for; times are CLOCK_MONOTONIC in nanoseconds. */
struct recent {
	__u64 first;
	__u64 last;
	__u64 count;
};

/* Where an address was heard last, and of whom. */
struct heard {
	__u32 entry;
	__u8 mac[ETH_ALEN];	/* the source link-layer address that it gave */
	__u16 zero;
};

/* What concerns all entries. */
struct settings {
	__u64 event_cost;	/* nanoseconds that an event takes of the budget of all sources */
	__u32 resolving_full;	/* Python can't have more targets resolved at the moment */
	__u32 routing;		/* enum routing_flag */
	__u32 kept;		/* the number of what still holds in `kept_routes`; 0: nothing does */
	__u32 zero;
};

/* What the kernel said it would do with packets for a target, as long as `number` is what settings.kept says. */
struct kept_route {
	__u32 number;
	__u32 there;
};

struct entry_counter {
	__u64 outcome[OUTCOMES];
	__u64 reason[REASONS];
};

struct rule_counter {
	__u64 outcome[OUTCOMES];
};

/* 52 bytes, so that a perf record (12 bytes of header, padded to 8) is 64 and none straddles the ring's end. */
struct ns_event {
	struct in6_addr target;
	struct in6_addr source;
	__u32 time_us;		/* CLOCK_MONOTONIC, microseconds modulo 2^32 */
	__u32 rule;
	__u8 eth_destination[ETH_ALEN];	/* where the answer goes */
	__be16 tci[MAX_TAGS];
	__u16 tags;		/* enum event_tags */
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct ns_event) == 52, "npd6_xdp/core/event.py reads 52 bytes");

/* The last solicitation that was passed on a CPU, for hidden_tag(), and when that told of one (CLOCK_MONOTONIC). */
struct passed {
	__u64 head;		/* the first bytes of the message; its checksum is over the addresses and the target, too */
	__u64 told;
	__u64 told_tagged;	/* when it told of a port's first tag */
	__u32 told_ifindex;
	__u32 ifindex;
	__u16 tags;		/* how many stood in the frame */
	__u16 message;		/* where the message stands behind the IPv6 header's begin */
	__u32 is_held;
	__u32 entry;
	struct ns_event event;	/* of one that is held */
};

/* When solicitations went on that had one tag within, and two (units of TAGGED_SHIFT): tagged_note(). */
struct tagged {
	__u32 when[MAX_TAGS];
};

/* --- maps ------------------------------------------------------------------------------------------ */

BPF_F_TABLE("hash", struct slot_key, struct slot, slots, SLOTS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct line_key, struct rule, lines, LINES_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct prefix_key, struct rule, prefixes, PREFIXES_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("percpu_array", int, struct entry_counter, entry_counters, ENTRIES_MAX);
BPF_TABLE("percpu_array", int, struct rule_counter, rule_counters, RULES_MAX);
BPF_TABLE("percpu_array", int, struct scratch, scratch_space, 1);
BPF_TABLE("percpu_array", int, struct passed, last_passed, 1);
BPF_TABLE("array", int, struct tagged, tagged_passed, TAGGED_MAX);	/* by checksum */
BPF_F_TABLE("hash", struct address_key, struct known, known_targets, KNOWN_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct via_key, u32, vias, VIAS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct source_key, u32, crowding, CROWDING_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("array", int, struct settings, settings_space, 1);
BPF_TABLE("array", int, u64, budget, 1);
BPF_TABLE("lru_hash", struct source_key, u64, sources, SOURCES_MAX);
BPF_TABLE("lru_hash", struct address_key, struct recent, recents, RECENTS_MAX);
BPF_TABLE("lru_hash", struct address_key, struct kept_route, kept_routes, KEPT_MAX); /* by entry */
BPF_TABLE("lru_hash", struct address_key, struct heard, heard_sources, HEARD_MAX); /* in no scope: one place of all */
BPF_PERF_OUTPUT(events);	/* wakes Python for each event */
BPF_PERF_OUTPUT(more_events);	/* for every 64th only */
BPF_F_TABLE("array", int, u32, unwatched_events, 1, BPF_F_MMAPABLE); /* not 0: whoever has an event is to wake Python */

/* --- parse: from the frame to the ICMPv6 message, with no map touched ------------------------------- */

static __always_inline bool is_multicast_ether(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline bool is_zero_ether(const __u8 *mac)
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static __always_inline bool is_same_ether(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

static __always_inline bool is_unspecified(const struct in6_addr *a)
{
	return !(a->qword[0] | a->qword[1]);
}

static __always_inline bool is_loopback(const struct in6_addr *a)
{
	return !(a->qword[0] | a->dword[2]) && a->dword[3] == BE32(1);
}

static __always_inline bool is_multicast(const struct in6_addr *a)
{
	return a->byte[0] == 0xff;
}

static __always_inline bool is_link_local(const struct in6_addr *a)
{
	return (a->word[0] & BE16(0xffc0)) == BE16(0xfe80);
}

/* ff02::1:ff00:0/104, RFC 4291 §2.7.1 */
static __always_inline bool is_solicited_node(const struct in6_addr *a)
{
	return a->dword[0] == BE32(0xff020000) && !a->dword[1] && a->dword[2] == BE32(1) && a->byte[12] == 0xff;
}

/*
 * Walks the chain of extension headers from f->message on. Hop-by-hop options stand only directly behind the
 * IPv6 header (RFC 8200 §4.1). False: this program can't see an ICMPv6 message behind them.
 */
static __always_inline bool extensions_parse(struct xdp_md *ctx, struct frame *f, __u8 nexthdr)
{
	int options = 0;

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct ipv6_opt_hdr opt;
		__u32 size;

		if (nexthdr == NEXTHDR_ICMP)
			break;
		/* a copy, since packet pointers at variable offsets make the verifier forget what it knew */
		if (bpf_xdp_load_bytes(ctx, f->message, &opt, sizeof(opt)))
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

/* Whether what ends at `end` isn't all in the frame. On arm64 clang compares the difference of the two with a size instead,
 * which is any number to the verifier. */
static __always_inline bool is_beyond(void *end, void *data_end)
{
	opaque(end);
	return end > data_end;
}

/* True for an ICMPv6 message of type 135; fills in all of `f`. False: not our business. */
static __always_inline bool ns_parse(struct xdp_md *ctx, struct frame *f)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6h;
	__be16 proto;
	void *nh;
	__u8 type;

	nh = eth + 1;
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
			f->tags |= EVENT_OUTER_8021AD << i;
		f->tags++;
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
		/* the way of nearly all traffic that comes this far: one byte tells */
		if (is_beyond(nh + 1, data_end) || *(__u8 *)nh != ND_NEIGHBOR_SOLICIT || !ip6h->payload_len)
			return false;
		f->message = f->l3 + sizeof(*ip6h);
		f->length = __builtin_bswap16(ip6h->payload_len);
	} else if (ip6h->nexthdr == NEXTHDR_HOP || ip6h->nexthdr == NEXTHDR_DEST || ip6h->nexthdr == NEXTHDR_FRAGMENT) {
		f->message = f->l3 + sizeof(*ip6h);
		f->length = __builtin_bswap16(ip6h->payload_len);
		if (!extensions_parse(ctx, f, ip6h->nexthdr) || !f->length)
			return false;
		if (bpf_xdp_load_bytes(ctx, f->message, &type, sizeof(type)) || type != ND_NEIGHBOR_SOLICIT)
			return false;
	} else {
		return false;
	}
	__builtin_memcpy(f->h_dest, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(f->h_source, eth->h_source, ETH_ALEN);
	return true;
}

/* --- check: RFC 4861 §7.1.1 and its kin, in the order that DESIGN.md gives; ids are those of RFC.md §A --- */

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A2: the checksum over pseudo-header and message, RFC 8200 §8.1; `length` is at most MESSAGE_MAX. */
static __always_inline bool is_checksum_valid(struct scratch *s, __u64 length)
{
	/* htons each: htonl(length) + htonl(58) would overflow 32 bits from length 198 on */
	__u64 sum = BE16(NEXTHDR_ICMP) + __builtin_bswap16(length);
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

/*
 * A6: every option has a length above 0 and ends within the message. Notes on the way where the source
 * link-layer address stands: the first such option of length 1 counts, others are as absent.
 */
static __always_inline bool options_check(struct scratch *s)
{
	s->has_sllao = 0;
	s->sllao = 0;
	s->option = sizeof(struct nd_msg);

	for (int i = 0; i < MESSAGE_MAX / 8; i++) {
		__u32 pos = s->option, length = s->frame.length, size;
		const __u8 *option;

		if (pos == length)
			return true;
		if (pos + 8 > length)
			return false;
		option = &s->message[pos & (MESSAGE_MAX - 8)]; /* the mask changes nothing, see `opaque` */
		size = option[1] * 8;
		if (!size || pos + size > length)
			return false;
		if (option[0] == ND_OPT_SOURCE_LL_ADDR) {
			s->has_sllao = 1;
			if (size == 8 && !s->sllao)
				s->sllao = pos;
		}
		s->option = pos + size;
	}
	return s->option == s->frame.length;
}

/*
 * VALID, or the first reason that says otherwise. Fills in the rest of `s`; an answer goes to the source
 * link-layer address option's MAC, else to the frame's source (RFC.md B8).
 */
static __always_inline enum reason ns_check(struct xdp_md *ctx, struct scratch *s)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6h = data + (s->frame.l3 & L3_MASK);
	__u32 message = s->frame.message;
	__u64 length = s->frame.length;

	if (is_beyond(ip6h + 1, data_end))
		return REASON_LENGTH; /* can't be, ns_parse() has looked; the verifier wants to hear it again */
	if (s->frame.fragment)
		return REASON_FRAGMENT; /* A10, RFC 6980 §5 */
	if (length < sizeof(struct nd_msg) || message + length > data_end - data)
		return REASON_LENGTH; /* A4 */
	if (length > MESSAGE_MAX)
		return TOO_LONG;
	if (ip6h->hop_limit != 255)
		return REASON_HOP_LIMIT; /* A1 */
	__builtin_memcpy(&s->source, &ip6h->saddr, sizeof(s->source));
	__builtin_memcpy(&s->destination, &ip6h->daddr, sizeof(s->destination));
	at_least(length, 1);
	at_most(length, MESSAGE_MAX);
	if (bpf_xdp_load_bytes(ctx, message, s->message, length))
		return REASON_LENGTH;
	if (s->ns.icmp6_code)
		return REASON_CODE; /* A3 */
	if (!is_checksum_valid(s, length))
		return REASON_CHECKSUM; /* A2 */
	if (is_multicast(&s->ns.target))
		return REASON_TARGET; /* A5 */
	if (is_multicast(&s->source) || is_loopback(&s->source))
		return REASON_SOURCE; /* A9, RFC 4291 §2.7, §2.5.3 */
	if (!options_check(s))
		return REASON_OPTION_LENGTH; /* A6 */
	if (is_unspecified(&s->source)) {
		if (!is_solicited_node(&s->destination))
			return REASON_DAD_DESTINATION; /* A7 */
		if (s->has_sllao)
			return REASON_DAD_SLLAO; /* A8 */
	}
	__builtin_memcpy(s->eth_destination, s->frame.h_source, ETH_ALEN);
	if (s->sllao) {
		const __u8 *mac = &s->message[s->sllao & (MESSAGE_MAX - 8)] + 2;

		if (!is_multicast_ether(mac) && !is_zero_ether(mac))
			__builtin_memcpy(s->eth_destination, mac, ETH_ALEN);
	}
	return VALID;
}

/* --- match ----------------------------------------------------------------------------------------- */

/* The entry that speaks for this frame: the one with its VLAN ids, else the port's "any". NULL: not attached. */
static __always_inline struct slot *slot_match(struct xdp_md *ctx, const struct frame *f)
{
	struct slot_key key = { .ifindex = ctx->ingress_ifindex };
	struct slot *slot;

	/* a tag with VID 0 carries a priority and names no VLAN (IEEE 802.1Q) */
	key.outer = __builtin_bswap16(f->tci[0]) & VLAN_VID_MASK;
	key.inner = __builtin_bswap16(f->tci[1]) & VLAN_VID_MASK;
	if (!key.outer) {
		key.outer = key.inner;
		key.inner = 0;
	}
	slot = slots.lookup(&key);
	if (slot)
		return slot;
	key.outer = VLAN_ANY;
	key.inner = VLAN_ANY;
	return slots.lookup(&key);
}

/* Frames that are never answered, whoever is asked for (RFC.md §C). */
static __always_inline bool is_frame_ignored(const struct scratch *s, const struct slot *slot)
{
	const struct frame *f = &s->frame;

	if (is_same_ether(f->h_source, slot->mac) || is_same_ether(f->h_source, slot->port_mac))
		return true; /* our own, looped back */
	if (!is_multicast_ether(f->h_dest) && !is_same_ether(f->h_dest, slot->mac) &&
	    !is_same_ether(f->h_dest, slot->port_mac))
		return true; /* another station's, flooded by a bridge */
	/* no one station asked: an answer to a group or to nobody would reach others than the asker */
	return is_multicast_ether(s->eth_destination) || is_zero_ether(s->eth_destination);
}

/* The mask of a prefix's first or last 64 bits, of which `bits` count. */
static __always_inline __u64 half_mask(int bits)
{
	return bits <= 0 ? 0 : bits >= 64 ? ~0ULL : __builtin_bswap64(~0ULL << (64 - bits));
}

/*
 * The rule for a target: addresses of their own first (own, next hops, rules for one address), then the
 * longest prefix. NULL: no rule; `outcome` then tells ignored from unmatched.
 *
 * Where an entry has many prefixes of few lengths, as an edge with many subscribers has, a hash look-up for each
 * length costs less than the trie, whose nodes are a cache miss each: with 100,000 of them less than half.
 */
static __always_inline struct rule *target_match(const struct slot *slot, const struct in6_addr *target,
						 enum outcome *outcome)
{
	struct line_key line = { .entry = slot->entry, .length = 128, .address = *target };
	struct prefix_key prefix = { .prefixlen = 32 + 128, .entry = slot->entry, .address = *target };
	struct rule *rule;

	*outcome = OUTCOME_IGNORED;
	if (is_unspecified(target) || is_loopback(target))
		return NULL;
	rule = lines.lookup(&line);
	if (rule)
		return rule;
	/* a link-local target is answered only if a rule names exactly that address */
	if (is_link_local(target))
		return NULL;
	*outcome = OUTCOME_UNMATCHED;
	if (slot->trie)
		return prefixes.lookup(&prefix);
#pragma unroll
	for (int i = 0; i < LENGTHS; i++) {
		line.length = slot->lengths[i];
		if (line.length == NO_LENGTH)
			return NULL;
		line.address.qword[0] = target->qword[0] & half_mask(line.length);
		line.address.qword[1] = target->qword[1] & half_mask((int)line.length - 64);
		rule = lines.lookup(&line);
		if (rule)
			return rule;
	}
	return NULL;
}

/* --- answer: the advertisement of RFC 4861 §7.2.4, in place; ids are those of RFC.md §B ---------------- */

struct advert {
	struct ipv6hdr ip6h;
	struct nd_msg na;
	__u8 opt_type;
	__u8 opt_len;
	__u8 opt_mac[ETH_ALEN];
};

/* The advertisement's source address; NULL where Python has to choose (B6). */
static __always_inline const struct in6_addr *advert_source(const struct slot *slot, const struct rule *rule,
							     const struct scratch *s)
{
	if (!(rule->flags & RULE_SOURCE_INTERFACE))
		return &s->ns.target;
	if (is_link_local(&s->source))
		return slot->sources & SOURCE_LINK_LOCAL ? &slot->link_local : NULL;
	return slot->sources & SOURCE_GLOBAL ? &slot->global : NULL;
}

/* Rewrites the frame into the answer. False: nothing was changed. */
static __always_inline bool advert_write(struct xdp_md *ctx, const struct slot *slot, const struct rule *rule,
					 const struct scratch *s)
{
	__u32 l3 = s->frame.l3 & L3_MASK;
	const struct in6_addr *source = advert_source(slot, rule, s);
	void *data, *data_end;
	struct ethhdr *eth;
	struct advert *adv;
	__be32 *word;
	__u64 sum;
	int delta;

	if (!source)
		return false;
	/* From the frame's length, not the payload's: a trailer must go (B9). No SLLAO grows, a Nonce shrinks. */
	delta = (int)(l3 + sizeof(*adv)) - (int)(ctx->data_end - ctx->data);
	if (delta && bpf_xdp_adjust_tail(ctx, delta))
		return false;

	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	eth = data;
	adv = data + l3;
	if (is_beyond(eth + 1, data_end) || is_beyond(adv + 1, data_end))
		return false;

	/* The tags between the MAC addresses and the IPv6 header stay as they are (B10). */
	__builtin_memcpy(eth->h_dest, s->eth_destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, slot->mac, ETH_ALEN);

	adv->ip6h.flow = BE32(0x60000000);
	adv->ip6h.payload_len = BE16(sizeof(*adv) - sizeof(adv->ip6h));
	adv->ip6h.nexthdr = NEXTHDR_ICMP;
	adv->ip6h.hop_limit = 255; /* B7 */
	adv->ip6h.saddr = *source;
	adv->ip6h.daddr = s->source; /* B2; source :: never comes here */
	adv->na.icmp6_type = ND_NEIGHBOR_ADVERT;
	adv->na.icmp6_code = 0;
	adv->na.icmp6_cksum = 0;
	/* Solicited, and never Override: "All solicited proxy Neighbor Advertisement messages MUST have the
	 * Override flag set to zero" (B3, §7.2.8) */
	adv->na.flags = rule->flags & RULE_ROUTER ? BE32(ND_NA_FLAG_ROUTER | ND_NA_FLAG_SOLICITED)
						  : BE32(ND_NA_FLAG_SOLICITED);
	adv->na.target = s->ns.target; /* B1 */
	adv->opt_type = ND_OPT_TARGET_LL_ADDR; /* B5 */
	adv->opt_len = 1;
	__builtin_memcpy(adv->opt_mac, slot->mac, ETH_ALEN);

	/* The addresses and the message stand side by side: 16 words, and what else the pseudo-header has. */
	word = (__be32 *)&adv->ip6h.saddr;
	sum = BE16(sizeof(*adv) - sizeof(adv->ip6h)) + BE16(NEXTHDR_ICMP);
#pragma unroll
	for (int i = 0; i < 16; i++)
		sum += word[i];
	adv->na.icmp6_cksum = ~csum_fold(sum);
	return true;
}

/* --- punt: up to Python ------------------------------------------------------------------------------ */

/*
 * A token bucket in one number: the moment until which what was spent is paid for. It may run ahead of now by
 * BURST, so that one second's worth of events can come at once.
 */
#define BURST 1000000000ULL

static __always_inline bool budget_spend(u64 *paid_until, __u64 cost, __u64 now)
{
	__u64 paid = *paid_until;

	/* CPUs that meet here may each forgive the others an event; an exact count isn't worth a lock */
	if (paid < now)
		*paid_until = paid = now;
	if (paid + cost > now + BURST)
		return false;
	__sync_fetch_and_add(paid_until, cost);
	return true;
}

/* Whether one more event may go up: by its source's budget (RFC 6583), then by that of all. */
static __always_inline bool is_within_limits(const struct slot *slot, const struct scratch *s,
					     const struct settings *settings, __u64 now)
{
	struct source_key key = { .entry = slot->entry };
	u64 *paid, zero = 0;
	int first = 0;

	if (slot->source_cost) {
		__builtin_memcpy(key.mac, s->frame.h_source, ETH_ALEN);
		paid = sources.lookup_or_try_init(&key, &zero);
		/* a table that is all in use refuses nobody: the budget of all still holds */
		if (paid && !budget_spend(paid, slot->source_cost, now))
			return false;
	}
	paid = budget.lookup(&first);
	return paid && budget_spend(paid, settings->event_cost, now);
}

/*
 * A wake-up costs 6.7 us here in softirq, an event that wakes nobody 0.4. So the first event after Python has begun
 * to look wakes it, and those behind it needn't: it will look once more before it sleeps. One at a time is answered
 * as fast as with a wake-up each, and a flood at the cost of a wake-up for hundreds.
 */
static __always_inline bool event_submit(void *ctx, struct ns_event *event)
{
	int key = 0;
	u32 *unwatched = unwatched_events.lookup(&key);

	if (unwatched && *unwatched) {
		*unwatched = 0;
		if (!events.perf_submit(ctx, event, sizeof(*event)))
			return true;
	}
	return !more_events.perf_submit(ctx, event, sizeof(*event));
}

/*
 * Whether Python would refuse to have the target resolved: it has too many under way, or too many of this entry's
 * (whose key has no MAC), or of this asker's.
 */
static __always_inline bool is_resolving_refused(const struct slot *slot, const struct scratch *s,
						 const struct settings *settings)
{
	struct source_key key = { .entry = slot->entry };

	if (settings->resolving_full || crowding.lookup(&key))
		return true;
	__builtin_memcpy(key.mac, s->eth_destination, ETH_ALEN);
	return crowding.lookup(&key);
}

/* Leaves an event to hidden_tag(), which comes next on this CPU, if the frame isn't lost in between. */
static __always_inline enum outcome event_hold(const struct slot *slot, const struct ns_event *event)
{
	int key = 0;
	struct passed *passed = last_passed.lookup(&key);

	if (!passed)
		return OUTCOME_LOST;
	passed->event = *event;
	passed->entry = slot->entry;
	passed->is_held = 1;
	return HELD;
}

/*
 * Whether a solicitation may have a tag that doesn't show, and is to be held until that is known. What is held goes on
 * to the kernel, which would forward a unicast one: of a sample there is none of those.
 */
static __always_inline bool is_to_be_held(struct slot *slot, const struct scratch *s)
{
	__u32 now;

	if (!(slot->flags & (SLOT_GUARDED | SLOT_SAMPLED)) || s->frame.tags & EVENT_TAG_COUNT)
		return false;
	if (slot->flags & SLOT_GUARDED)
		return true;
	if (!is_multicast_ether(s->frame.h_dest))
		return false;
	now = bpf_ktime_get_ns() >> 30; /* about a second */
	if (slot->looked == now)
		return false;
	slot->looked = now; /* CPUs that meet here may each take one */
	return true;
}

static __always_inline enum outcome ns_punt(struct xdp_md *ctx, const struct slot *slot, const struct rule *rule,
					    const struct scratch *s, __u16 tags)
{
	__u64 now = bpf_ktime_get_ns();
	struct settings *settings;
	int key = 0;

	settings = settings_space.lookup(&key);
	if (!settings)
		return OUTCOME_LOST;
	if (tags & EVENT_MISS && rule->decision == DECISION_NEIGHBOUR && is_resolving_refused(slot, s, settings))
		return OUTCOME_RATE_LIMITED;
	if (!is_within_limits(slot, s, settings, now))
		return OUTCOME_RATE_LIMITED;

	struct ns_event event = {
		.target = s->ns.target,
		.source = s->source,
		.time_us = now / 1000,
		.rule = rule->id,
		.tci = { s->frame.tci[0], s->frame.tci[1] },
		.tags = s->frame.tags | tags,
	};

	__builtin_memcpy(event.eth_destination, s->eth_destination, ETH_ALEN);
	if (s->is_held)
		return event_hold(slot, &event);
	return event_submit(ctx, &event) ? HANDED_UP : OUTCOME_LOST;
}

/* --- decide ---------------------------------------------------------------------------------------- */

/* What the kernel said when Python asked it about the target, if that still holds. */
static __always_inline enum presence route_kept(const struct slot *slot, const struct scratch *s,
						const struct settings *settings)
{
	struct address_key key = { .scope = slot->entry, .address = s->ns.target };
	struct kept_route *kept;

	if (!settings->kept)
		return PRESENCE_UNKNOWN;
	kept = kept_routes.lookup(&key);
	if (!kept || kept->number != settings->kept)
		return PRESENCE_UNKNOWN;
	return kept->there ? PRESENCE_THERE : PRESENCE_ABSENT;
}

/*
 * Whether the routing table leads to the target, out of another interface than the solicitation came in by
 * (and one of the rule's, if it names any) that leads anywhere. The kernel's own table is asked, so nothing is ever
 * out of date. bpf_fib_lookup() tells of nearly all; of what else there is on this machine, Python knows.
 */
static __always_inline enum presence target_routed(struct xdp_md *ctx, const struct slot *slot,
						   const struct rule *rule, const struct scratch *s)
{
	/* the source stays zero: with a link-local one, the kernel says that nothing is forwarded */
	struct bpf_fib_lookup fib = { .family = AF_INET6, .ifindex = slot->l3_ifindex };
	struct via_key via = { .group = rule->flags & RULE_VIA ? rule->group : GROUP_NOWHERE };
	struct settings *settings;
	int code, key = 0;

	settings = settings_space.lookup(&key);
	if (!settings)
		return PRESENCE_ABSENT;
	if (settings->routing & ROUTING_SOURCE && !is_link_local(&s->source))
		__builtin_memcpy(fib.ipv6_src, &s->source, sizeof(s->source));
	__builtin_memcpy(fib.ipv6_dst, &s->ns.target, sizeof(s->ns.target));
	code = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (code == BPF_FIB_LKUP_RET_UNSUPP_LWT || /* SRv6, MPLS: there is a route, and no word of where it leads */
	    settings->routing & ROUTING_ALL ||
	    (settings->routing & ROUTING_UNFOUND &&
	     (code == BPF_FIB_LKUP_RET_NOT_FWDED || code == BPF_FIB_LKUP_RET_FWD_DISABLED)))
		return route_kept(slot, s, settings);
	if (code != BPF_FIB_LKUP_RET_SUCCESS && code != BPF_FIB_LKUP_RET_NO_NEIGH)
		return PRESENCE_ABSENT;
	if (fib.ifindex == slot->l3_ifindex || fib.ifindex == LOOPBACK_IFINDEX)
		return PRESENCE_ABSENT;
	via.ifindex = fib.ifindex;
	/* among a rule's own there is none that leads nowhere */
	if (!(rule->flags & RULE_VIA) && !(settings->routing & ROUTING_NOWHERE))
		return PRESENCE_THERE;
	return !vias.lookup(&via) == !(rule->flags & RULE_VIA) ? PRESENCE_THERE : PRESENCE_ABSENT;
}

static __always_inline void target_remember(const struct slot *slot, const struct scratch *s)
{
	struct address_key key = { .scope = slot->entry, .address = s->ns.target };
	__u64 now = bpf_ktime_get_ns();
	struct recent *recent, fresh = { .first = now, .last = now, .count = 1 };

	recent = recents.lookup(&key);
	if (recent) {
		recent->last = now;
		__sync_fetch_and_add(&recent->count, 1);
	} else {
		recents.update(&key, &fresh);
	}
}

/*
 * Whether the asker's address was heard last in another place, or with another MAC, or never. The kernel would learn of
 * it by the solicitation (RFC 4861 §7.2.3), which it doesn't get. A link-local address is in each place another's.
 */
static __always_inline bool is_heard_anew(const struct slot *slot, const struct scratch *s)
{
	struct address_key key = { .address = s->source };
	struct heard *heard;

	if (is_unspecified(&s->source) || is_link_local(&s->source))
		return false;
	heard = heard_sources.lookup(&key);
	return !heard || heard->entry != slot->entry || !is_same_ether(heard->mac, s->eth_destination);
}

static __always_inline void heard_remember(const struct slot *slot, const struct scratch *s)
{
	struct address_key key = { .address = s->source };
	struct heard heard = { .entry = slot->entry };

	__builtin_memcpy(heard.mac, s->eth_destination, ETH_ALEN);
	heard_sources.update(&key, &heard);
}

/* What becomes of a valid solicitation that a rule covers, and the making so; HANDED_UP where Python will tell. */
static __always_inline enum outcome ns_decide(struct xdp_md *ctx, struct slot *slot, const struct rule *rule,
					      struct scratch *s)
{
	struct address_key key = { .scope = rule->group, .address = s->ns.target };
	bool dad = is_unspecified(&s->source);
	enum outcome punted;
	struct known *known = NULL;
	__u16 tags = 0;

	if (rule->decision == DECISION_OWN)
		return OUTCOME_OWN;
	if (rule->decision == DECISION_NEXT_HOP || rule->decision == DECISION_IGNORE)
		return OUTCOME_IGNORED;
	if (slot->collect)
		target_remember(slot, s);
	if (rule->decision == DECISION_NEIGHBOUR || rule->decision == DECISION_KERNEL) {
		known = known_targets.lookup(&key);
		if (!known)
			tags = EVENT_MISS;
		else if (known->flags & KNOWN_STALE)
			tags = EVENT_STALE;
	}
	if (dad && !(rule->flags & RULE_DEFEND)) /* any answer would kill the asker's address, RFC 4862 §5.4 */
		return known && rule->decision == DECISION_KERNEL && slot->datapath != DATAPATH_MONITOR
			? DAD_WITHHELD : OUTCOME_DAD;
	if (rule->decision == DECISION_ROUTE) {
		s->presence = target_routed(ctx, slot, rule, s);
		if (s->presence == PRESENCE_ABSENT)
			return OUTCOME_ABSENT;
		if (s->presence == PRESENCE_UNKNOWN)
			tags = EVENT_MISS;
	}
	if (slot->datapath == DATAPATH_MONITOR)
		return OUTCOME_MONITORED;
	s->tags = tags;
	if (slot->flags & SLOT_HEARS && is_heard_anew(slot, s))
		s->tags |= EVENT_HEARD;
	tags = s->tags;
	if (known)
		known->asked = bpf_ktime_get_ns() / 1000000000;
	if (known && rule->decision == DECISION_KERNEL)
		return OUTCOME_KERNEL;
	s->is_held = is_to_be_held(slot, s);
	if (slot->datapath == DATAPATH_HYBRID && !dad && !s->frame.extended && !(tags & EVENT_MISS) &&
	    !s->is_held && advert_write(ctx, slot, rule, s)) {
		if (!tags)
			return OUTCOME_ANSWERED_XDP;
		tags |= EVENT_ANSWERED;
	}
	punted = ns_punt(ctx, slot, rule, s, tags);
	/* Python knows; had this one been refused or lost, the next would say it */
	if (punted == HANDED_UP || punted == HELD) {
		if (known && tags & EVENT_STALE)
			known->flags = 0;
		if (tags & EVENT_HEARD)
			heard_remember(slot, s);
	}
	/* of method kernel, Python answers a first one itself */
	if (punted == HANDED_UP && tags & EVENT_MISS && rule->decision == DECISION_NEIGHBOUR)
		return UNDECIDED;
	return tags & EVENT_ANSWERED ? OUTCOME_ANSWERED_XDP : punted;
}

/* --- entry ----------------------------------------------------------------------------------------- */

/*
 * The one exit of every solicitation: counts the outcome and says what becomes of the frame. `onward`: others behind
 * the port get it as well, so one of them may be who is asked for, as long as we don't say that it is us.
 */
static __always_inline int ns_record(struct entry_counter *counter, const struct rule *rule, enum outcome outcome,
				     bool onward)
{
	struct rule_counter *rule_counter;
	int action = XDP_PASS;
	int key;

	if (outcome == HANDED_UP)
		return XDP_DROP;
	if (outcome == UNDECIDED)
		return onward ? XDP_PASS : XDP_DROP;
	if (outcome == HELD)
		return XDP_PASS;
	if (outcome == OUTCOME_ANSWERED_XDP)
		action = XDP_TX;
	/* what is lost or refused is ours: passed on, a flood would reach the stack instead */
	if ((outcome == OUTCOME_LOST || outcome == OUTCOME_RATE_LIMITED) && !onward)
		action = XDP_DROP;
	if (outcome == DAD_WITHHELD)
		action = XDP_DROP;
	if (outcome == DAD_WITHHELD)
		outcome = OUTCOME_DAD;
	if (outcome >= OUTCOMES)
		return XDP_PASS;
	counter->outcome[outcome]++;
	if (rule) {
		key = rule->id;
		rule_counter = rule_counters.lookup(&key);
		if (rule_counter)
			rule_counter->outcome[outcome]++;
	}
	return action;
}

/* Notes a valid solicitation that goes on to the kernel, so that hidden_tag() knows what this program saw of it. */
static __always_inline void passed_note(const struct scratch *s, __u32 ifindex, bool is_held)
{
	int key = 0;
	struct passed *passed = last_passed.lookup(&key);

	if (!passed)
		return;
	__builtin_memcpy(&passed->head, &s->ns, sizeof(passed->head));
	passed->ifindex = ifindex;
	passed->is_held = is_held;
	passed->tags = s->frame.tags & EVENT_TAG_COUNT;
	passed->message = s->frame.message - s->frame.l3;
}

/*
 * Notes that a solicitation goes on to the kernel that has tags within, valid or not: hidden_tag() is to find it again
 * when other frames have come in between, or by another CPU. A driver (native mode) hands on several at once, and RPS
 * spreads them.
 */
static __always_inline void tagged_note(struct xdp_md *ctx, const struct frame *f)
{
	__u32 tags = f->tags & EVENT_TAG_COUNT;
	struct tagged *tagged;
	__u16 checksum;
	int key;

	if (!tags)
		return;
	if (bpf_xdp_load_bytes(ctx, f->message + CHECKSUM_AT, &checksum, sizeof(checksum)))
		return;
	key = checksum % TAGGED_MAX;
	tagged = tagged_passed.lookup(&key);
	if (tagged)
		tagged->when[tags == 1 ? 0 : 1] = bpf_ktime_get_ns() >> TAGGED_SHIFT;
}

int ns_filter(struct xdp_md *ctx)
{
	struct entry_counter *counter;
	struct rule *rule = NULL;
	struct frame f = {};
	enum outcome outcome;
	enum reason reason;
	struct scratch *s;
	struct slot *slot;
	int key = 0, action;

	if (!ns_parse(ctx, &f))
		return XDP_PASS;
	s = scratch_space.lookup(&key);
	if (!s)
		return XDP_PASS;
	slot = slot_match(ctx, &f);
	s->frame = f; /* from here on, this is what is read: the verifier would walk on for each kind of `f` */
	if (!slot) {
		tagged_note(ctx, &s->frame);
		return XDP_PASS;
	}
	key = slot->entry;
	counter = entry_counters.lookup(&key);
	if (!counter)
		return XDP_PASS;

	reason = ns_check(ctx, s);
	if (reason < REASONS) {
		counter->reason[reason]++;
		outcome = OUTCOME_INVALID;
	} else if (reason == TOO_LONG) {
		outcome = OUTCOME_UNMATCHED;
	} else if (is_frame_ignored(s, slot)) {
		outcome = OUTCOME_IGNORED;
	} else {
		rule = target_match(slot, &s->ns.target, &outcome);
		if (rule) {
			s->rule = *rule;
			rule = &s->rule;
			outcome = ns_decide(ctx, slot, rule, s);
		}
	}
	action = ns_record(counter, rule, outcome, slot->flags & SLOT_SHARED && is_multicast_ether(f.h_dest));
	if (action == XDP_PASS && slot->flags & SLOT_TAPPED) {
		tagged_note(ctx, &s->frame);
		if (reason == VALID)
			passed_note(s, ctx->ingress_ifindex, outcome == HELD);
	}
	return action;
}

/* --- tap: tags that stand beside the frame ------------------------------------------------------------- */

#define TOLD_PAUSE 100000000ULL /* nanoseconds */

/* Counts one that was held, and became something else than an event. */
static __always_inline void held_record(const struct passed *passed, enum outcome outcome)
{
	struct entry_counter *counter;
	struct rule_counter *rule_counter;
	int key = passed->entry;

	counter = entry_counters.lookup(&key);
	if (counter)
		counter->outcome[outcome]++;
	key = passed->event.rule;
	rule_counter = rule_counters.lookup(&key);
	if (rule_counter)
		rule_counter->outcome[outcome]++;
}

/*
 * Whether to tell of a frame that has a tag, of whatever kind it is: the first on a port with an entry for what seems to
 * be untagged. What XDP answers doesn't come here; what the asker sends next does. In or beside, nobody can say of it.
 */
static __always_inline bool is_first_tag(struct __sk_buff *skb, struct passed *passed)
{
	struct slot_key key = { .ifindex = skb->ifindex };
	struct slot *slot;
	__u64 now;

	slot = slots.lookup(&key);
	if (!slot) {
		key.outer = VLAN_ANY;
		key.inner = VLAN_ANY;
		slot = slots.lookup(&key);
	}
	if (!slot || !(slot->flags & SLOT_TAGLESS))
		return false;
	now = bpf_ktime_get_ns();
	if (now - passed->told_tagged < TOLD_PAUSE)
		return false;
	passed->told_tagged = now;
	return true;
}

/*
 * Whether a frame with more tags than the last note says is that note's, and one of the tags stood beside it. In native
 * mode the note may be of another frame, that came behind it and has the same checksum: then this one's own tags were
 * seen within it just now, as many as it has here. Nothing else may be taken for a solicitation here than ns_parse()
 * does, or nobody noted it.
 */
static __always_inline bool is_tag_hidden(struct __sk_buff *skb, __u32 l3, __u32 tags, const struct passed *passed,
					  __u64 now)
{
	struct tagged *tagged;
	__u16 checksum;
	__u8 head[8];
	int key;

	if (tags != passed->tags + 1 || tags > MAX_TAGS)
		return false; /* one at most stands beside a frame */
	if (bpf_skb_load_bytes(skb, l3, head, sizeof(head)) || head[0] >> 4 != 6 || !(head[4] | head[5]))
		return false;
	if (passed->message != sizeof(struct ipv6hdr) || head[6] != NEXTHDR_ICMP)
		return false;
	if (bpf_skb_load_bytes(skb, l3 + passed->message + CHECKSUM_AT, &checksum, sizeof(checksum)))
		return false;
	key = checksum % TAGGED_MAX;
	tagged = tagged_passed.lookup(&key);
	return tagged && (__u32)(now >> TAGGED_SHIFT) - tagged->when[tags == 1 ? 0 : 1] > 1;
}

/*
 * The filter of a packet socket on a port: takes those solicitations of which ns_filter() didn't see all VLAN tags,
 * since the kernel holds the outer one beside the frame (skb->vlan_tci). A NIC's receive offload puts it there, or the
 * sender's kernel, where both ends are one machine's (veth). A program in generic mode runs before the kernel takes the
 * tags out of the frames, a tap behind that, on the same CPU, so the number of tags tells the one from the other.
 * What was answered or consumed never comes here; what is held is handed up from here, if it has no such tag.
 * It also takes the first frame with any tag of a port, and cuts that to FIRST_TAG bytes.
 */
#define FIRST_TAG 1

int hidden_tag(struct __sk_buff *skb)
{
	__u32 l3 = sizeof(struct ethhdr), tags = skb->vlan_present;
	struct passed *passed;
	struct ns_event event;
	__be16 proto;
	__u64 head, now;
	int key = 0;

	passed = last_passed.lookup(&key);
	if (!passed || bpf_skb_load_bytes(skb, 12, &proto, sizeof(proto)))
		return 0;
	if (tags && passed->ifindex != skb->ifindex)
		return is_first_tag(skb, passed) ? FIRST_TAG : 0;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (proto != BE16(ETH_P_8021Q) && proto != BE16(ETH_P_8021AD))
			break;
		tags++;
		l3 += sizeof(struct vlan_hdr);
		if (bpf_skb_load_bytes(skb, l3 - 2, &proto, sizeof(proto)))
			return 0;
	}
	if (proto != BE16(ETH_P_IPV6))
		return 0;
	if (passed->ifindex != skb->ifindex)
		return 0;
	/* a note is of one frame, which is the very next here: else an invalid copy of it, with a tag, would be believed */
	passed->ifindex = 0;
	if (bpf_skb_load_bytes(skb, l3 + passed->message, &head, sizeof(head)) || head != passed->head)
		return 0;
	if (tags <= passed->tags) {
		if (passed->is_held) {
			passed->is_held = 0;
			event = passed->event;
			if (!event_submit(skb, &event))
				held_record(passed, OUTCOME_LOST);
		}
		return 0;
	}
	if (passed->is_held) {
		passed->is_held = 0;
		held_record(passed, OUTCOME_MONITORED);
	}
	now = bpf_ktime_get_ns();
	if (passed->told_ifindex == skb->ifindex && now - passed->told < TOLD_PAUSE)
		return 0; /* a flood says no more than the first of it */
	if (!is_tag_hidden(skb, l3, tags, passed, now))
		return 0;
	passed->told = now;
	passed->told_ifindex = skb->ifindex;
	return sizeof(struct ethhdr);
}
