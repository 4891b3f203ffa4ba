// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * shared: the enums and structs that both the program and Python see, in maps and in events. Python's structs are in
 * npd6_xdp/core/layout.py, its enums where each says; tests/datapath/test_mirror.py compares them, field by field.
 */
#ifndef NPD6_SHARED_H
#define NPD6_SHARED_H

#include "wire.h"

#define VLAN_ANY 0xffff
#define LENGTHS 8 /* a hash look-up each: 4 at rest, and those of two tables while one follows another */
#define NO_LENGTH 255
#define MAX_TAGS 2
#define VIA_SET_NOWHERE 0 /* no rule's */
#define FIRST_TAG 1       /* bytes that the tap leaves of a port's first frame with a tag */
#define NO_RULE 0xffffffff
#define TRACE_FRAME_MAX 1536 /* bytes that are kept of a traced frame: any of the usual MTU, with its tags */
#define TRACE_ADVERT 72      /* bytes of an advertisement behind its tags */
#define TRACE_NOTHING 255    /* in a trace record: it has no reason, limit or decision */

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
	OUTCOME_STANDBY,
};
#define OUTCOMES (OUTCOME_STANDBY + 1)

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
};
#define REASONS (REASON_DAD_SLLAO + 1)

/* Which limit is in its way, where it is refused: numbers of npd6_xdp/core/verdict.py Limit. */
enum limit {
	LIMIT_SOURCE,     /* events_per_source */
	LIMIT_ALL,        /* limits.events_per_second */
	LIMIT_PENDING,    /* as many targets are pending as there is space for */
	LIMIT_CROWDED,    /* the entry, the asker or the target has its share of that */
	LIMIT_FULL,       /* limits.neighbours: found by Python only */
	LIMIT_NEW_TARGET, /* new_targets_per_second */
};
#define LIMITS (LIMIT_NEW_TARGET + 1)

/* How a target is decided: numbers of npd6_xdp/core/table.py Decision. */
enum decision {
	DECISION_OWN,      /* C1: the ingress interface's own address: the kernel answers */
	DECISION_NEXT_HOP, /* C6: a router behind the ingress interface: never impersonated */
	DECISION_IGNORE,
	DECISION_STATIC,    /* always there */
	DECISION_ROUTE,     /* there if the routing table leads to it, out of another interface, or here */
	DECISION_NEIGHBOUR, /* there if `present_targets` has it; Python has the kernel resolve others */
	DECISION_KERNEL,    /* the kernel's own proxy answers once `present_targets` has it; Python adds others */
};

/* Flags of a rule: npd6_xdp/core/table.py RuleFlag. */
enum rule_flag {
	RULE_ROUTER = 1,           /* R = 1 in the advertisement */
	RULE_DEFEND = 2,           /* answer DAD probes for present targets */
	RULE_SOURCE_INTERFACE = 4, /* source: the interface's address, not the target */
	RULE_VIA = 8,              /* only out of the interfaces of the rule's via set */
};

/* Who answers on an entry: npd6_xdp/core/entries.py. */
enum datapath {
	DATAPATH_HYBRID,
	DATAPATH_PYTHON,
	DATAPATH_MONITOR,
};

/* What is known of an entry's port: npd6_xdp/core/entries.py EntryFlag. */
enum entry_flag {
	ENTRY_SHARED = 1,      /* others live behind it: a bridge's port, or one with macvlan or ipvlan devices */
	ENTRY_TAPPED = 2,      /* tags may stand beside its frames: hidden_tag() looks at what is passed */
	ENTRY_GUARDED = 4,     /* tags probably do: what seems untagged waits for hidden_tag() */
	ENTRY_SAMPLED = 8,     /* tags might: the same for about one solicitation a second */
	ENTRY_TAGLESS = 16,    /* no tag was seen on the port so far: hidden_tag() is to tell of any */
	ENTRY_HEARS = 32,      /* targets live behind it: Python is told of new source addresses */
	ENTRY_BUDGETED = 64,   /* so many new targets a second, and no more: new_target_cost */
	ENTRY_REMEMBERS = 128, /* one of two edges: its targets are remembered for when it gets active */
	ENTRY_STANDBY = 256,   /* the other edge answers */
	ENTRY_TRACED = 512,    /* somebody looks at what becomes of its solicitations: trace_begin() */
	ENTRY_PLAIN = 1024,    /* ns_answer_plain() may answer: nothing is to be known of who asks for what, and when */
};

/* What of routes and rules there is that bpf_fib_lookup() can't decide by: npd6_xdp/core/routes.py RoutingFlag. */
enum routing_flag {
	ROUTING_UNFOUND = 1, /* what it doesn't find may be there: prefixes delivered here, throw routes */
	ROUTING_ALL = 2,     /* rules pass over routes (suppress_prefixlength), and it doesn't */
	ROUTING_SOURCE = 4,  /* rules or routes go by the source */
	ROUTING_NOWHERE = 8, /* some interfaces lead nowhere: the via set VIA_SET_NOWHERE of `vias` */
};

/* Flags of an event: npd6_xdp/core/event.py EventFlag. */
enum event_flag {
	EVENT_TAG_COUNT = 3,    /* mask: how many VLAN tags the frame has */
	EVENT_OUTER_8021AD = 4, /* the first tag's TPID is 0x88a8, not 0x8100 */
	EVENT_INNER_8021AD = 8,
	/* and what Python has to do, or to know: */
	EVENT_MISS = 16,     /* the maps lack the target: resolve it, add a proxy entry, or ask for its route */
	EVENT_STALE = 32,    /* the target is present, but stale: have the kernel probe it */
	EVENT_ANSWERED = 64, /* answered and counted already */
	EVENT_HEARD = 128,   /* the source is new on this entry, or has another MAC: the kernel won't learn it */
	EVENT_TRACED = 256,  /* somebody waits to hear what becomes of it */
};

/* Flags of a present target: npd6_xdp/core/table.py PresentFlag. */
enum present_flag {
	PRESENT_STALE = 1, /* its neighbour entry is NUD_STALE; cleared once Python has been told */
};

/* What a trace record tells: npd6_xdp/core/trace_wire.py TraceKind. */
enum trace_kind {
	TRACE_DECIDED,   /* a solicitation, and its outcome */
	TRACE_HANDED_UP, /* one whose outcome Python finds */
	TRACE_HELD,      /* one that waits for hidden_tag(): either hands it up, or tells by TRACE_FOUND */
	TRACE_FOUND,     /* the outcome of one that was held, and no frame */
};

struct rule {
	__u32 id; /* index of rule_counters */
	__u16 decision;
	__u16 flags;
	__u32 via_set; /* of `vias` and `present_targets` */
};

/* VLAN ids, outermost first; 0 is none, VLAN_ANY stands for all frames that no other key speaks for. */
struct entry_key {
	__u32 ifindex;
	__u16 outer;
	__u16 inner;
};

/* One [[interface]] entry on one port: what its frames are matched against, and how they are answered. */
struct entry {
	__u32 id;                /* scope of addresses and prefixes, index of entry_counters */
	__u8 mac[ETH_ALEN];      /* what is advertised: the port's, or its bridge's */
	__u8 port_mac[ETH_ALEN]; /* the port's own; the same, but on a bridge's port */
	__u16 flags;             /* enum entry_flag */
	__u8 datapath;
	__u8 source_flags;     /* enum source_flag */
	__u32 l3_ifindex;      /* the interface that the kernel takes the frames to come in by */
	__u32 has_only;        /* the entry has one prefix, and the only_... say all of it */
	struct rule only_rule; /* stands in its map, too, as if it weren't here */
	__u64 exact_filter;    /* bits of is_filtered_out(): clear where no line of 128 bits can match */
	struct in6_addr only_prefix;
	struct in6_addr only_mask;
	struct in6_addr link_local;
	struct in6_addr global_address;
	__u64 source_cost;     /* nanoseconds that an event of one source MAC takes of its budget; 0: no limit */
	__u64 new_target_cost; /* nanoseconds that a new target takes of the entry's budget, where it has one */
	__u8 lengths[LENGTHS]; /* of the entry's prefixes, the longest first; NO_LENGTH behind the last */
	__u32 sampled;         /* when a solicitation was held last as a sample: in units of about a second */
	__u16 collect;         /* remember the targets */
	__u16 trie;            /* prefixes are in the trie, not in `exact_matches` by `lengths` */
};

/* Which of an entry's two source addresses can be used as they are (for rules with RULE_SOURCE_INTERFACE). */
enum source_flag {
	SOURCE_LINK_LOCAL = 1, /* link_local is what a link-local asker gets */
	SOURCE_GLOBAL = 2,     /* global_address is what any other asker gets; clear: Python chooses among several */
};

/* A line of the flat table: an address (128 bits), or a prefix of an entry that has many, of few lengths. */
struct exact_key {
	__u32 entry;
	__u32 length; /* in bits */
	struct in6_addr address;
};

/* Scoped by an entry, or by a rule's via set. */
struct address_key {
	__u32 scope;
	__u32 zero; /* where the compiler would pad: a key's bytes all count */
	struct in6_addr address;
};

struct trie_key {
	__u32 prefixlen; /* in bits, those of `entry` included */
	__u32 entry;
	struct in6_addr address;
};

/* A target that is there (neighbour), or that the kernel's proxy answers for (kernel). */
struct present_target {
	__u32 flags; /* enum present_flag */
	__u32 asked; /* CLOCK_MONOTONIC, seconds: when it was last asked for */
};

struct via_key {
	__u32 via_set;
	__u32 ifindex;
};

/*
 * One MAC on one entry: of a frame's source in `source_budgets`, of where the answer goes in
 * `refused_askers` (zeros: of all).
 */
struct mac_key {
	__u32 entry;
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

/*
 * A target that was answered lately, by this edge or, on standby, by the other: when it was asked for last
 * (CLOCK_MONOTONIC, nanoseconds), and the tags of that frame.
 */
struct answered {
	__u64 asked;
	__be16 tci[MAX_TAGS];
	__u16 tag_flags; /* enum event_flag, as far as tags go */
	__u16 zero;
};

/*
 * A target of one of two edges that was asked for, and isn't known to be there: as above, who was the first to ask, and
 * how often that one asked again.
 */
struct asked {
	__u64 asked;
	__be16 tci[MAX_TAGS];
	__u16 tag_flags;
	__u16 again;
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

/*
 * A target that was asked for: times (CLOCK_MONOTONIC, nanoseconds), and what became of the last one that asked, and who
 * that was. Of an event, `outcome` is the one to expect, and `last` the event's own time: Python says what it found.
 */
struct recent {
	__u64 first;
	__u64 last;
	__u64 count;
	struct in6_addr source;
	__u8 source_mac[ETH_ALEN];
	__u16 outcome; /* enum outcome */
};

/* On which entry an address was heard last, and with which MAC. */
struct heard {
	__u32 entry;
	__u8 mac[ETH_ALEN]; /* the source link-layer address that it gave */
	__u16 zero;
};

/* What concerns all entries. */
struct settings {
	__u64 event_cost;      /* nanoseconds that an event takes of the budget of all sources */
	__u32 pending_full;    /* no more targets may be pending at the moment */
	__u32 routing;         /* enum routing_flag */
	__u32 kept_generation; /* the generation that still holds in `kept_routes`; 0: nothing does */
	__u32 zero;
};

/* What the kernel would do with packets for a target, while `generation` is settings.kept_generation. */
struct kept_route {
	__u32 generation;
	__u32 there;
};

struct entry_counter {
	__u64 outcome[OUTCOMES];
	__u64 reason[REASONS];
	__u64 limit[LIMITS]; /* of OUTCOME_RATE_LIMITED */
};

struct rule_counter {
	__u64 outcome[OUTCOMES];
};

/* 52 bytes, so that a perf record (12 bytes of header, padded to 8) is 64 and none straddles the ring's end. */
struct ns_event {
	struct in6_addr target;
	struct in6_addr source;
	__u32 time_us; /* CLOCK_MONOTONIC, microseconds modulo 2^32 */
	__u32 rule;
	__u8 answer_mac[ETH_ALEN]; /* where the answer goes (B8) */
	__be16 tci[MAX_TAGS];
	__u16 flags; /* enum event_flag */
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct ns_event) == 52, "a record has 52 bytes for it");

/* Which solicitations somebody wants to see. Which entries' is in their flags. */
struct trace_filter {
	struct in6_addr target;
	struct in6_addr target_mask;
	struct in6_addr source;
	struct in6_addr source_mask;
	__u8 mac[ETH_ALEN]; /* of the frame's source */
	__u16 by_mac;
	__u16 outer; /* VLAN ids as in an entry_key; VLAN_ANY: all */
	__u16 inner;
	__u32 outcomes; /* a bit each */
	__u32 by_rule;  /* those of `trace_rules` only */
	__u32 sample;   /* one of so many, on each CPU */
};

/* What was seen for that on one CPU. */
struct trace_count {
	__u64 sampled; /* what the filter let through before it was decided, of which each n-th is traced */
	__u64 matched; /* of what was decided here: what the filter wants */
	__u64 lost;    /* of those: what the ring had no space for */
};

/* One solicitation, on the ring as far as `kept` says; `time` is its event's, too (CLOCK_MONOTONIC, nanoseconds). */
struct trace_record {
	__u64 time;
	__u32 ifindex;
	__u32 entry;
	__u32 rule; /* or NO_RULE */
	__u32 size; /* of the frame on the wire */
	struct in6_addr target;
	struct in6_addr source;
	__u16 kept; /* bytes of it that are here */
	__u8 kind;  /* enum trace_kind */
	__u8 outcome;
	__u8 reason;
	__u8 limit;
	__u8 decision;
	__u8 is_answered;
	__u8 advert_macs[2 * ETH_ALEN]; /* of the advertisement that went out; its tags are those of the frame */
	__u8 zero[4];
	__u8 advert[TRACE_ADVERT];
	__u8 frame[TRACE_FRAME_MAX];
};

#endif
