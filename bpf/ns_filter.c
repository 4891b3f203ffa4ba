// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ns_filter: finds the Neighbor Solicitations among a port's frames, checks them (RFC 4861 §7.1.1), matches
 * their targets against the rules, and answers them in place or hands them up to Python. One text for two hooks:
 * ns_filter() has frames of XDP, ns_filter_tc() those of tc. Both have the same maps.
 *
 * The contract:
 *  - A frame that isn't an NS is passed with no map touched.
 *  - An NS gets exactly one outcome. Those decided here are counted here, per CPU; an NS that went up as an
 *    event is counted by Python (npd6_xdp/daemon/counts.py), unless it says that it was answered here.
 *  - Two ways: ns_answer_plain() finds, checks, decides and answers a plain NS where it lies, and leaves all else to
 *    ns_handle(), which can do all. What either says of a frame is the same: action, counters, each byte.
 *  - Fail open: what the program can't decide, it passes to the kernel untouched. It never aborts.
 *  - XDP_TX carries the advertisement. XDP_DROP means that the NS is ours: handed up, refused (rate_limited), lost,
 *    or a DAD probe that the kernel would defend (D3). All else is XDP_PASS. Where other stations live behind the
 *    port, a multicast NS that may be meant for them is passed, too. For tc, hook_action() says the same in its words.
 *
 * What touches a map is here, and reads downward. What doesn't is in headers, each of which stands on the one
 * before it and can be skipped: wire.h (headers and constants of the RFCs), hook.h (in what XDP and tc differ), shared.h
 * (what Python sees as well), then a solicitation's first steps, parse.h and check.h, the answer to it, advert.h, who looks
 * on, trace.h, and the short way of plain ones, plain.h.
 * There is no map in a header: bcc gives a meaning to `map.lookup()` in a program's main file only, and else the
 * kernel says "unknown opcode 8d". Python puts the headers in their places before it hands the text to bcc
 * (npd6_xdp/system/bpf/load.py), which sizes the maps with -D.
 */

#include "wire.h"
#include "hook.h"
#include "shared.h"
#include "parse.h"
#include "check.h"
#include "advert.h"
#include "trace.h"
#include "plain.h"

#define AF_INET6 10
#define LOOPBACK_IFINDEX 1 /* lo's, in every network namespace */
#define TAGGED_MAX 16384   /* a note for each checksum modulo this */
#define TAGGED_SHIFT 28    /* nanoseconds to units of 0.27 s, in which a frame gets from here to the taps */
#define TRACE_RULES_MAX 4096
#define PORT_PLACES 4096       /* npd6_xdp/system/bpf/port_entries.py reads it from the map */
#define TAKEN_MAX 100000000ULL /* nanoseconds in which a frame gets from the tap to tc; askers wait longer */
#define PAGE_SIZE 4096         /* for BPF_RINGBUF_OUTPUT(): 16 of them are whole pages on every machine */

/* What becomes of a solicitation's frame. */
enum action {
	ACTION_PASS,         /* the kernel gets it, untouched */
	ACTION_CONSUME,      /* it is ours: dropped, unless ns_record() passes it */
	ACTION_WANTS_ANSWER, /* of ns_decide(): ns_answer() says who answers, with an action and an outcome */
	ACTION_ANSWER,       /* it goes back as the advertisement */
	ACTION_HAND_UP,      /* it went up as an event, Python answers and counts it: the outcome is what to expect */
	ACTION_HOLD,         /* it goes on, and hidden_tag() hands up the event or counts it */
};

struct verdict {
	enum outcome outcome;
	enum action action;
	enum limit limit; /* of OUTCOME_RATE_LIMITED */
};

static __always_inline struct verdict pass(enum outcome outcome)
{
	return (struct verdict){ outcome, ACTION_PASS };
}

static __always_inline struct verdict consume(enum outcome outcome)
{
	return (struct verdict){ outcome, ACTION_CONSUME };
}

static __always_inline struct verdict refuse(enum limit limit)
{
	return (struct verdict){ OUTCOME_RATE_LIMITED, ACTION_CONSUME, limit };
}

/*
 * The last solicitation that was passed on a CPU, for hidden_tag(), and when that told of a hidden tag last
 * (CLOCK_MONOTONIC).
 */
struct passed {
	__u64 head; /* the first bytes of the message; its checksum is over the addresses and the target, too */
	__u64 told;
	__u64 told_tagged; /* when it told of a port's first tag */
	__u32 told_ifindex;
	__u32 ifindex;
	__u16 tags;    /* how many stood in the frame */
	__u16 message; /* where the message stands behind the IPv6 header's begin */
	__u32 is_held;
	__u32 entry;
	__u64 traced_at;
	struct ns_event event; /* of one that is held */
	__u64 taken_at;        /* when the tap handed up the last frame that it saw, until tc has that; or 0 */
	__u64 taken;           /* its message's first bytes */
	__u32 taken_ifindex;
};

/* When a solicitation with one tag in the frame was passed last, and with two (TAGGED_SHIFT): tagged_note(). */
struct tagged {
	__u32 when[MAX_TAGS];
};

/* --- maps ------------------------------------------------------------------------------------------ */

/* entries and vias have their memory from the start: where a table comes in force, they can't be refused any */
BPF_TABLE("hash", struct entry_key, struct entry, entries, ENTRIES_MAX);
/*
 * Those of untagged frames once more, to be found by the port's index. At index % PORT_PLACES, `port_places` has the index
 * and, in its lower half, the number of a copy in `port_entries`; or another port's, or 0: then `entries` are asked. Python
 * lets go of a number before it changes anything, and writes into a copy that no program can be reading any more.
 */
BPF_F_TABLE("array", int, u64, port_places, PORT_PLACES, BPF_F_MMAPABLE);
BPF_TABLE("array", int, struct entry, port_entries, PORT_ENTRIES_MAX);
/*
 * Raised by Python before each write to the maps of a table. What is found in these is one table's, if it is the same
 * afterwards: else it may be of either, and the two together may answer what neither does.
 */
BPF_F_TABLE("array", int, u64, table_writes, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", struct exact_key, struct rule, exact_matches, EXACT_MATCHES_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct trie_key, struct rule, prefix_trie, PREFIX_TRIE_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("percpu_array", int, struct entry_counter, entry_counters, ENTRY_COUNTERS_MAX);
BPF_TABLE("percpu_array", int, struct rule_counter, rule_counters, RULE_COUNTERS_MAX);
BPF_TABLE("percpu_array", int, struct scratch, scratch_space, 1);
BPF_TABLE("percpu_array", int, struct passed, last_passed, 1);
BPF_TABLE("array", int, struct tagged, tagged_passed, TAGGED_MAX); /* by checksum */
BPF_F_TABLE("hash", struct address_key, struct present_target, present_targets, PRESENT_TARGETS_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("hash", struct via_key, u32, vias, VIAS_MAX);
BPF_F_TABLE("hash", struct mac_key, u32, refused_askers, REFUSED_ASKERS_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("array", int, struct settings, settings_space, 1);
BPF_TABLE("array", int, u64, event_budget, 1);
BPF_TABLE("lru_hash", struct mac_key, u64, source_budgets, SOURCE_BUDGETS_MAX);
BPF_TABLE("array", int, u64, target_budgets, TARGET_BUDGETS_MAX);                   /* of new targets, by entry */
BPF_TABLE("lru_hash", struct address_key, struct answered, answered, ANSWERED_MAX); /* by entry */
/* those that may not be there, which are as many as a scan makes them: Python tells which of them are */
BPF_TABLE("lru_hash", struct address_key, struct asked, asked_targets, ASKED_TARGETS_MAX);
BPF_TABLE("lru_hash", struct address_key, struct recent, recent_targets, RECENT_TARGETS_MAX);
/* those that no rule covers, or one ignores, which are as many as a scan makes them: they push out none of the others */
BPF_TABLE("lru_hash", struct address_key, struct recent, other_targets, OTHER_TARGETS_MAX);
BPF_TABLE("lru_hash", struct address_key, struct kept_route, kept_routes, KEPT_ROUTES_MAX);    /* by entry */
BPF_TABLE("lru_hash", struct address_key, struct heard, heard_addresses, HEARD_ADDRESSES_MAX); /* in no scope */
/* what goes into `events` wakes nobody; what goes into `wakeups` wakes Python, and is nothing to read */
BPF_PERF_OUTPUT(events);
BPF_PERF_OUTPUT(wakeups);
BPF_F_TABLE("array", int, u32, need_wakeup, 1, BPF_F_MMAPABLE); /* not 0: the next event is to wake Python */
BPF_TABLE("array", int, struct trace_filter, trace_filters, 1);
BPF_F_TABLE("hash", u32, u32, trace_rules, TRACE_RULES_MAX, BPF_F_NO_PREALLOC);
BPF_TABLE("percpu_array", int, struct trace_count, trace_counts, 1);
BPF_TABLE("percpu_array", int, struct trace_record, trace_space, 1);
BPF_RINGBUF_OUTPUT(trace_model, 16);             /* what the one in trace_ring is like; nothing goes into it */
BPF_ARRAY_OF_MAPS(trace_ring, "trace_model", 1); /* empty, but while somebody looks */

/* --- trace: while somebody looks -------------------------------------------------------------------------- */

/*
 * Begins the record of a solicitation that may be wanted, while the frame is as it came. What is wanted by its outcome
 * or its rule isn't known yet. The time (CLOCK_MONOTONIC, nanoseconds); 0 if it isn't wanted, and has no record.
 */
static __always_inline __u64 trace_begin(struct packet p, __u32 entry, const struct frame *f)
{
	struct trace_filter *filter;
	struct trace_record *record;
	struct trace_count *count;
	int key = 0;

	filter = trace_filters.lookup(&key);
	if (!filter || !is_frame_traced(filter, f) || !are_addresses_traced(p, filter, f))
		return 0;
	if (filter->sample > 1) {
		count = trace_counts.lookup(&key);
		if (!count || count->sampled++ % filter->sample)
			return 0;
	}
	record = trace_space.lookup(&key);
	if (!record || !trace_copy(p, f, record))
		return 0;
	record->ifindex = packet_ifindex(p);
	record->entry = entry;
	record->time = bpf_ktime_get_ns();
	return record->time;
}

static __always_inline bool is_rule_traced(const struct trace_filter *filter, __u32 rule)
{
	return !filter->by_rule || trace_rules.lookup(&rule);
}

/* Whether somebody waits for what becomes of a solicitation that isn't decided here. */
static __always_inline bool is_event_traced(const struct rule *rule, const struct scratch *s)
{
	struct trace_filter *filter;
	int key = 0;

	if (!s->traced_at || s->event_flags & EVENT_ANSWERED)
		return false;
	filter = trace_filters.lookup(&key);
	return filter && filter->outcomes & TRACE_FOUND_LATER && is_rule_traced(filter, rule->id);
}

/* Puts a record onto the ring, and counts it, if it says what became of a solicitation. */
static __always_inline void trace_put(struct trace_record *record, bool is_counted)
{
	__u64 size = record->kept;
	struct trace_count *count;
	void *ring;
	int key = 0;
	bool is_lost;

	at_most(size, TRACE_FRAME_MAX);
	size += __builtin_offsetof(struct trace_record, frame);
	ring = trace_ring.lookup(&key);
	is_lost = !ring || bpf_ringbuf_output(ring, record, size, 0);
	if (!is_counted)
		return; /* if it is lost, whoever hears what becomes of it will miss it */
	count = trace_counts.lookup(&key);
	if (!count)
		return;
	count->matched++;
	if (is_lost)
		count->lost++;
}

/* --- match ----------------------------------------------------------------------------------------- */

/*
 * The entry that speaks for frames with these tags: the one with their VLAN ids, else the port's "any". NULL: the port has
 * none. ns_handle() has `key` in a map: on the stack, the verifier would follow each value of each VLAN id separately.
 */
static __always_inline struct entry *entry_match(struct packet p, const __be16 *tci, struct entry_key *key)
{
	struct entry *entry;

	key->ifindex = packet_ifindex(p);
	/* H1: a tag with VID 0 carries a priority and names no VLAN (IEEE 802.1Q) */
	key->outer = be16_to_cpu(tci[0]) & VLAN_VID_MASK;
	key->inner = be16_to_cpu(tci[1]) & VLAN_VID_MASK;
	if (!key->outer) {
		key->outer = key->inner;
		key->inner = 0;
	}
	entry = entries.lookup(key);
	if (entry)
		return entry;
	key->outer = VLAN_ANY;
	key->inner = VLAN_ANY;
	return entries.lookup(key);
}

/* Notes how often a table was written: what is found from now on is one table's, as long as is_one_table(). */
static __always_inline bool writes_note(struct scratch *s, const u64 *writes)
{
	if (!writes)
		return false;
	s->table_writes = *(volatile const u64 *)writes;
	return true;
}

static __always_inline bool is_one_table(const struct scratch *s)
{
	const u64 *writes;
	int key = 0;

	read_barrier();
	writes = table_writes.lookup(&key);
	return writes && *(volatile const u64 *)writes == s->table_writes;
}

/* Finds the entry that speaks for a frame, and keeps a copy. False: there is none. */
static __always_inline bool entry_find(struct packet p, struct scratch *s)
{
	const struct entry *entry;

	entry = entry_match(p, s->frame.tci, &s->entry_key);
	if (!entry)
		return false;
	s->entry = *entry;
	return true;
}

/* Frames that are never answered, whatever their target is (docs/rules.md, C). */
static __always_inline bool is_frame_ignored(const struct scratch *s, const struct entry *entry)
{
	const struct frame *f = &s->frame;

	if (is_same_ether(f->h_source, entry->mac) || is_same_ether(f->h_source, entry->port_mac))
		return true; /* C4: our own, looped back */
	/* F2: a multicast packet that is sent to our MAC address is treated like any other */
	if (!is_multicast_ether(f->h_dest) && !is_same_ether(f->h_dest, entry->mac) &&
	    !is_same_ether(f->h_dest, entry->port_mac))
		return true; /* C5: another station's, flooded by a bridge */
	/* C9: an answer would go to no single station's MAC: it would reach other stations, or none */
	return is_multicast_ether(s->answer_mac) || is_zero_ether(s->answer_mac);
}

/* The mask of a prefix's first or last 64 bits, of which `bits` count. */
static __always_inline __be64 half_mask(int bits)
{
	return bits <= 0 ? 0 : bits >= 64 ? ~0ULL : BE64(~0ULL << (64 - bits));
}

/* The line for just this address: own, a next hop, or a rule for one address. */
static __always_inline struct rule *address_match(const struct entry *entry, const struct in6_addr *target)
{
	struct exact_key exact = { .entry = entry->id, .length = 128, .address = *target };

	return exact_matches.lookup(&exact);
}

/*
 * The rule of the longest prefix.
 *
 * If an entry has many prefixes of few lengths, as with many subscribers, a hash look-up for each length costs less
 * than the trie, each node of which is a cache miss: with 100,000 prefixes, less than half.
 */
static __always_inline struct rule *prefix_match(const struct entry *entry, const struct in6_addr *target)
{
	struct trie_key trie = { .prefixlen = 32 + 128, .entry = entry->id, .address = *target };
	struct exact_key exact = { .entry = entry->id };
	struct rule *rule;

	if (entry->trie)
		return prefix_trie.lookup(&trie);
#pragma unroll
	for (int i = 0; i < LENGTHS; i++) {
		exact.length = entry->lengths[i];
		if (exact.length == NO_LENGTH)
			return NULL;
		exact.address.qword[0] = target->qword[0] & half_mask(exact.length);
		exact.address.qword[1] = target->qword[1] & half_mask((int)exact.length - 64);
		rule = exact_matches.lookup(&exact);
		if (rule)
			return rule;
	}
	return NULL;
}

/*
 * The rule for a target: addresses of their own first, then the longest prefix. NULL: no rule; `outcome` then tells
 * ignored from unmatched.
 */
static __always_inline struct rule *target_match(const struct entry *entry, const struct in6_addr *target,
						 enum outcome *outcome)
{
	struct rule *rule;

	*outcome = OUTCOME_IGNORED;
	/* C3: :: and ::1 */
	if (is_unspecified(target) || is_loopback(target))
		return NULL;
	rule = address_match(entry, target);
	if (rule)
		return rule;
	/* C2: a link-local target is answered only if a rule names exactly that address */
	if (is_link_local(target))
		return NULL;
	*outcome = OUTCOME_UNMATCHED; /* C7, if nothing is found */
	return prefix_match(entry, target);
}

#define LOOKS 2

/*
 * Finds the rule for a valid solicitation; the outcome, if there is none. Where another table goes into the maps
 * meanwhile, it looks once more, from the entry on; where that happens again, it leaves the frame alone.
 */
static __always_inline enum outcome rule_find(struct packet p, struct scratch *s)
{
	enum outcome outcome = OUTCOME_IGNORED;
	const struct rule *rule;
	int key = 0;

	for (int look = 0; look < LOOKS; look++) {
		s->has_rule = 0;
		if (look && !(writes_note(s, table_writes.lookup(&key)) && entry_find(p, s)))
			return OUTCOME_UNMATCHED;
		rule = is_frame_ignored(s, &s->entry) ? NULL : target_match(&s->entry, &s->ns.target, &outcome);
		if (rule)
			s->rule = *rule;
		if (is_one_table(s)) {
			s->has_rule = !!rule;
			return outcome;
		}
		outcome = OUTCOME_IGNORED;
	}
	return OUTCOME_LOST;
}

/* --- decide ---------------------------------------------------------------------------------------- */

/* The kernel's answer when Python asked it about the target, if it still holds. */
static __always_inline enum presence route_kept(const struct entry *entry, const struct in6_addr *target,
						const struct settings *settings)
{
	struct address_key key = { .scope = entry->id, .address = *target };
	struct kept_route *kept;

	if (!settings->kept_generation)
		return PRESENCE_UNKNOWN;
	kept = kept_routes.lookup(&key);
	if (!kept || kept->generation != settings->kept_generation)
		return PRESENCE_UNKNOWN;
	return kept->there ? PRESENCE_THERE : PRESENCE_ABSENT;
}

/*
 * Whether the routing table leads to the target, out of another interface than the solicitation came in by (and one of
 * the rule's, if it names any) that leads anywhere. The kernel's own table is asked, so nothing is ever out of date.
 * bpf_fib_lookup() knows nearly all routes; `settings.routing` says whether this machine has others, and then Python
 * asks the kernel.
 */
static __always_inline enum presence target_routed(struct packet p, const struct entry *entry, const struct rule *rule,
						   const struct in6_addr *source, const struct in6_addr *target)
{
	/* the source stays zero: with a link-local one, the kernel says that nothing is forwarded */
	struct bpf_fib_lookup fib = {
		.family = AF_INET6,
		.ifindex = entry->l3_ifindex,
		/* tc's compares a packet with the route's MTU: any that fits, or it would take the solicitation's size */
		.tot_len = p.hook == HOOK_TC ? sizeof(struct ipv6hdr) : 0,
	};
	struct via_key via = { .via_set = rule->flags & RULE_VIA ? rule->via_set : VIA_SET_NOWHERE };
	struct settings *settings;
	int code, key = 0;

	settings = settings_space.lookup(&key);
	if (!settings)
		return PRESENCE_ABSENT;
	if (settings->routing & ROUTING_SOURCE && !is_link_local(source))
		__builtin_memcpy(fib.ipv6_src, source, sizeof(*source));
	__builtin_memcpy(fib.ipv6_dst, target, sizeof(*target));
	code = bpf_fib_lookup(p.ctx, &fib, sizeof(fib), 0);
	if (code == BPF_FIB_LKUP_RET_UNSUPP_LWT || /* SRv6, MPLS: a route, but where it leads isn't said */
	    settings->routing & ROUTING_ALL ||
	    (settings->routing & ROUTING_UNFOUND &&
	     (code == BPF_FIB_LKUP_RET_NOT_FWDED || code == BPF_FIB_LKUP_RET_FWD_DISABLED)))
		return route_kept(entry, target, settings);
	if (code != BPF_FIB_LKUP_RET_SUCCESS && code != BPF_FIB_LKUP_RET_NO_NEIGH)
		return PRESENCE_ABSENT;
	if (fib.ifindex == entry->l3_ifindex || fib.ifindex == LOOPBACK_IFINDEX)
		return PRESENCE_ABSENT;
	via.ifindex = fib.ifindex;
	/* a rule's own via interfaces include none that leads nowhere */
	if (!(rule->flags & RULE_VIA) && !(settings->routing & ROUTING_NOWHERE))
		return PRESENCE_THERE;
	return !vias.lookup(&via) == !(rule->flags & RULE_VIA) ? PRESENCE_THERE : PRESENCE_ABSENT;
}

/*
 * Whether the asker's address was heard last on another link, or with another MAC, or never. The kernel would learn it
 * from the solicitation (RFC 4861 §7.2.3), which it doesn't get. A link-local address on another link is another
 * host's.
 */
static __always_inline bool is_heard_anew(const struct entry *entry, const struct scratch *s)
{
	struct address_key key = { .address = s->source };
	struct heard *heard;

	if (is_unspecified(&s->source) || is_link_local(&s->source))
		return false;
	heard = heard_addresses.lookup(&key);
	return !heard || heard->entry != entry->id || !is_same_ether(heard->mac, s->answer_mac);
}

static __always_inline void heard_remember(const struct entry *entry, const struct scratch *s)
{
	struct address_key key = { .address = s->source };
	struct heard heard = { .entry = entry->id };

	__builtin_memcpy(heard.mac, s->answer_mac, ETH_ALEN);
	heard_addresses.update(&key, &heard);
}

/* Looks up the present target, for methods neighbour and kernel; what Python has to know goes to s->event_flags. */
static __always_inline struct present_target *target_present(const struct rule *rule, struct scratch *s)
{
	struct address_key key = { .scope = rule->via_set, .address = s->ns.target };
	struct present_target *present;

	if (rule->decision != DECISION_NEIGHBOUR && rule->decision != DECISION_KERNEL)
		return NULL;
	present = present_targets.lookup(&key);
	if (!present)
		s->event_flags = EVENT_MISS;
	else if (present->flags & PRESENT_STALE)
		s->event_flags = EVENT_STALE;
	return present;
}

/* Decides about a valid solicitation that a rule covers. ACTION_WANTS_ANSWER: ns_answer() goes on. */
static __always_inline struct verdict ns_decide(struct packet p, const struct entry *entry, const struct rule *rule,
						struct scratch *s)
{
	bool dad = is_unspecified(&s->source);
	struct present_target *present;

	if (rule->decision == DECISION_OWN)
		return pass(OUTCOME_OWN); /* C1 */
	if (rule->decision == DECISION_NEXT_HOP || rule->decision == DECISION_IGNORE)
		return pass(OUTCOME_IGNORED); /* C6, C8 */
	s->event_flags = 0;
	present = target_present(rule, s);
	if (dad && !(rule->flags & RULE_DEFEND)) {
		/*
		 * D1: any answer would make the asker give the address up; D3: and so would one by the kernel's proxy
		 * entry
		 */
		if (present && rule->decision == DECISION_KERNEL && entry->datapath != DATAPATH_MONITOR)
			return consume(OUTCOME_DAD);
		return pass(OUTCOME_DAD);
	}
	if (rule->decision == DECISION_ROUTE) {
		s->presence =
			s->found_route ? s->found_route - 1 : target_routed(p, entry, rule, &s->source, &s->ns.target);
		if (s->presence == PRESENCE_ABSENT)
			return pass(OUTCOME_ABSENT);
		if (s->presence == PRESENCE_UNKNOWN)
			s->event_flags = EVENT_MISS;
	}
	if (entry->flags & ENTRY_STANDBY)
		return (struct verdict){ .action = ACTION_WANTS_ANSWER }; /* J2: by the other edge */
	if (entry->datapath == DATAPATH_MONITOR)
		return pass(OUTCOME_MONITORED);
	if (entry->flags & ENTRY_HEARS && is_heard_anew(entry, s))
		s->event_flags |= EVENT_HEARD;
	if (present)
		present->asked = bpf_ktime_get_ns() / 1000000000;
	if (present && rule->decision == DECISION_KERNEL)
		return pass(OUTCOME_KERNEL);
	return (struct verdict){ .action = ACTION_WANTS_ANSWER };
}

/* --- answer, or punt: up to Python --------------------------------------------------------------------- */

/*
 * A token bucket in one number: the moment until which what was spent is paid for. It may run ahead of now by
 * BURST, so that one second's worth of events can come at once.
 */
#define BURST 1000000000ULL

static __always_inline bool budget_spend(u64 *paid_until, __u64 cost, __u64 now)
{
	__u64 paid = *paid_until;

	/*
	 * CPUs that are here at the same time may each let one event too many through; an exact count isn't worth a
	 * lock
	 */
	if (paid < now)
		*paid_until = paid = now;
	if (paid + cost > now + BURST)
		return false;
	__sync_fetch_and_add(paid_until, cost);
	return true;
}

/* Spends an event of its source's budget; whether there was one left (E3). */
static __always_inline bool source_spend(const struct entry *entry, const struct scratch *s, __u64 now)
{
	struct mac_key key = { .entry = entry->id };
	u64 *paid, zero = 0;

	if (!entry->source_cost)
		return true;
	__builtin_memcpy(key.mac, s->frame.h_source, ETH_ALEN);
	paid = source_budgets.lookup_or_try_init(&key, &zero);
	/* if the map is full, nobody is refused: the common budget still holds */
	return !paid || budget_spend(paid, entry->source_cost, now);
}

/* Spends an event of the budget of all sources together; whether there was one left (E3). */
static __always_inline bool event_spend(const struct settings *settings, __u64 now)
{
	int first = 0;
	u64 *paid = event_budget.lookup(&first);

	return paid && budget_spend(paid, settings->event_cost, now);
}

#define AGAIN_MOST 1000

/*
 * J3: Remembers a target that isn't known to be there. Who gets no answer asks again, a second later (RFC 4861 §7.2.2).
 */
static __always_inline void asked_note(const struct scratch *s, const struct address_key *key,
				       const struct answered *now)
{
	struct asked *known, fresh = {
		.asked = now->asked,
		.tci = { now->tci[0], now->tci[1] },
		.tag_flags = now->tag_flags,
	};

	known = asked_targets.lookup(key);
	if (!known) {
		__builtin_memcpy(fresh.mac, s->frame.h_source, ETH_ALEN);
		asked_targets.update(key, &fresh);
		return;
	}
	known->asked = fresh.asked;
	known->tci[0] = fresh.tci[0];
	known->tci[1] = fresh.tci[1];
	known->tag_flags = fresh.tag_flags;
	if (is_same_ether(known->mac, s->frame.h_source) && known->again < AGAIN_MOST)
		known->again++;
}

/*
 * Whether a target may be answered at all: it was lately, or one more is left of its entry's budget of new ones (E4).
 * Each that is new fills the asker's neighbour cache, so a scan would push out what others need. A probe fills none,
 * nor does a target that was found to be there (neighbour), or that has a proxy entry (kernel) and doesn't come here.
 * J3: one of two edges remembers all that may be in the asker's cache, whichever of the two has answered: these are what it
 * announces when it gets active.
 */
static __always_inline bool target_admit(const struct entry *entry, const struct rule *rule, const struct scratch *s)
{
	struct address_key key = { .scope = entry->id, .address = s->ns.target };
	struct answered *known, now = {
		.asked = bpf_ktime_get_ns(),
		.tci = { s->frame.tci[0], s->frame.tci[1] },
		.tag_flags = s->frame.tag_flags,
	};
	bool is_free = rule->decision == DECISION_NEIGHBOUR;
	int index = entry->id;
	u64 *paid;

	if (is_unspecified(&s->source) || (is_free && !(entry->flags & ENTRY_REMEMBERS)))
		return true;
	known = answered.lookup(&key); /* which makes it the one that was asked for last */
	if (known) {
		*known = now;
		return true;
	}
	if (is_free && s->event_flags & EVENT_MISS) {
		asked_note(s, &key, &now);
		return true;
	}
	if (!is_free && entry->flags & ENTRY_BUDGETED) {
		paid = target_budgets.lookup(&index);
		if (paid && !budget_spend(paid, entry->new_target_cost, now.asked))
			return false;
	}
	answered.update(&key, &now);
	return true;
}

/*
 * Wakes Python if it may be asleep. A wake-up costs 6.7 us here in softirq, an event without one 0.4. So the first event
 * after Python has begun to look wakes it, and those that follow don't: it looks once more before it sleeps. One at a
 * time is answered as fast as with a wake-up each, and a flood at the cost of a wake-up for hundreds.
 *
 * No event waits for a wake-up that nobody gives. Python raises the flag and then looks for events; here the event is
 * stored and then the flag is read: at least one of the two sees what the other has written, as long as neither of them
 * reads before its own write is to be seen. Hence the atomic instruction, which x86 lets no read overtake.
 */
static __always_inline void wakeup_send(void *ctx)
{
	u64 fence = 0;
	int key = 0;
	u32 *wakeup;

	__sync_fetch_and_add(&fence, 1);
	wakeup = need_wakeup.lookup(&key);
	if (!wakeup || !*wakeup)
		return;
	*wakeup = 0;
	wakeups.perf_submit(ctx, &key, sizeof(key));
}

static __always_inline bool event_submit(void *ctx, struct ns_event *event)
{
	if (events.perf_submit(ctx, event, sizeof(*event)))
		return false;
	wakeup_send(ctx);
	return true;
}

/*
 * Whether a target that isn't known may not become pending: of those that are, too many are this entry's (whose key has
 * no MAC), or this asker's. Which are pending already isn't known here. So an asker of one of those is refused as well,
 * whom Python would remember.
 */
static __always_inline bool is_asker_refused(const struct entry *entry, const struct scratch *s)
{
	struct mac_key key = { .entry = entry->id };

	if (refused_askers.lookup(&key))
		return true;
	__builtin_memcpy(key.mac, s->answer_mac, ETH_ALEN);
	return refused_askers.lookup(&key);
}

/* Leaves an event to hidden_tag(), which runs next on this CPU, unless the frame is lost in between. */
static __always_inline bool event_hold(const struct entry *entry, const struct scratch *s, const struct ns_event *event)
{
	int key = 0;
	struct passed *passed = last_passed.lookup(&key);

	if (!passed)
		return false;
	passed->event = *event;
	passed->traced_at = s->traced_at;
	passed->entry = entry->id;
	passed->is_held = 1;
	return true;
}

/*
 * Whether a solicitation may have a hidden tag, and is to be held until that is known. What is held goes on to the
 * kernel, which would forward a unicast one, so samples are multicast only.
 */
static __always_inline bool hold_begin(struct packet p, const struct entry *entry, struct scratch *s)
{
	struct entry *sampled;
	__u32 now;

	if (p.hook == HOOK_TC || !(entry->flags & (ENTRY_GUARDED | ENTRY_SAMPLED)) ||
	    s->frame.tag_flags & EVENT_TAG_COUNT)
		return false;
	if (entry->flags & ENTRY_GUARDED)
		return true;
	if (!is_multicast_ether(s->frame.h_dest))
		return false;
	now = bpf_ktime_get_ns() >> 30; /* about a second */
	if (entry->sampled == now)
		return false;
	sampled = entries.lookup(&s->entry_key);
	if (sampled)
		sampled->sampled = now; /* CPUs that meet here may each take one */
	return true;
}

/*
 * Whether a frame at tc went up as an event already: while a port goes from the one to the other, XDP is there as well, may
 * have held it, and the tap has handed it up just before, on this CPU.
 */
static __always_inline bool is_taken(struct packet p, const struct entry *entry, const struct frame *f)
{
	struct passed *passed;
	__u64 head, taken_at;
	int key = 0;

	if (p.hook == HOOK_XDP || !(entry->flags & (ENTRY_GUARDED | ENTRY_SAMPLED)))
		return false;
	passed = last_passed.lookup(&key);
	if (!passed || !passed->taken_at || passed->taken_ifindex != packet_ifindex(p))
		return false;
	taken_at = passed->taken_at;
	passed->taken_at = 0;
	if (packet_load(p, f->message, &head, sizeof(head)) || head != passed->taken)
		return false;
	/* longer ago, it was another one in the same words, when there was no program at tc to see it */
	return bpf_ktime_get_ns() - taken_at < TAKEN_MAX;
}

static __always_inline struct verdict ns_punt(struct packet p, const struct entry *entry, const struct rule *rule,
					      struct scratch *s)
{
	__u64 now = s->traced_at; /* the event's time is the record's, by which the two are told to be one's */
	struct settings *settings;
	__u16 flags = s->event_flags;
	int key = 0;

	if (!now)
		now = bpf_ktime_get_ns();
	settings = settings_space.lookup(&key);
	if (!settings)
		return consume(OUTCOME_LOST);
	if (flags & EVENT_MISS && rule->decision == DECISION_NEIGHBOUR) {
		if (settings->pending_full)
			return refuse(LIMIT_PENDING);
		if (is_asker_refused(entry, s))
			return refuse(LIMIT_CROWDED);
	}
	if (!source_spend(entry, s, now))
		return refuse(LIMIT_SOURCE);
	if (!event_spend(settings, now))
		return refuse(LIMIT_ALL);

	struct ns_event event = {
		.target = s->ns.target,
		.source = s->source,
		.time_us = now / 1000,
		.rule = rule->id,
		.tci = { s->frame.tci[0], s->frame.tci[1] },
		.flags = s->frame.tag_flags | flags,
	};

	__builtin_memcpy(event.answer_mac, s->answer_mac, ETH_ALEN);
	s->handed_up = now;
	if (s->is_held ? !event_hold(entry, s, &event) : !event_submit(p.ctx, &event))
		return consume(OUTCOME_LOST);
	if (s->is_held)
		return (struct verdict){ OUTCOME_ANSWERED_PYTHON, ACTION_HOLD };
	/* of method kernel, Python answers a first one itself */
	if (flags & EVENT_MISS && rule->decision == DECISION_NEIGHBOUR)
		return (struct verdict){ OUTCOME_PENDING, ACTION_HAND_UP };
	return (struct verdict){ OUTCOME_ANSWERED_PYTHON, ACTION_HAND_UP };
}

/*
 * Python has been told, so the next solicitation needn't tell it. If the event was lost, this isn't called; one that is
 * held counts as told, though the tap may lose it.
 */
static __always_inline void told_note(const struct entry *entry, const struct rule *rule, const struct scratch *s)
{
	struct address_key key = { .scope = rule->via_set, .address = s->ns.target };
	struct present_target *present;

	if (s->event_flags & EVENT_STALE) {
		present = present_targets.lookup(&key);
		if (present)
			present->flags = 0;
	}
	if (s->event_flags & EVENT_HEARD)
		heard_remember(entry, s);
}

/* Answers in place where that is possible. Else, or where Python has to know something, an event goes up. */
static __always_inline struct verdict ns_answer(struct packet p, const struct entry *entry, const struct rule *rule,
						struct scratch *s)
{
	struct verdict verdict;

	if (entry->flags & (ENTRY_BUDGETED | ENTRY_REMEMBERS)) {
		bool admitted = target_admit(entry, rule, s);

		if (entry->flags & ENTRY_STANDBY)
			return pass(OUTCOME_STANDBY);
		if (!admitted)
			return refuse(LIMIT_NEW_TARGET);
	}
	s->is_held = hold_begin(p, entry, s);
	if (entry->datapath == DATAPATH_HYBRID && !is_unspecified(&s->source) && !s->frame.extended &&
	    !(s->event_flags & EVENT_MISS) && !s->is_held && advert_write(p, entry, rule, s)) {
		if (!s->event_flags)
			return (struct verdict){ OUTCOME_ANSWERED_XDP, ACTION_ANSWER };
		s->event_flags |= EVENT_ANSWERED;
	}
	if (entry->flags & ENTRY_TRACED && is_event_traced(rule, s))
		s->event_flags |= EVENT_TRACED;
	verdict = ns_punt(p, entry, rule, s);
	if (verdict.action == ACTION_HAND_UP || verdict.action == ACTION_HOLD)
		told_note(entry, rule, s);
	if (s->event_flags & EVENT_ANSWERED)
		return (struct verdict){ OUTCOME_ANSWERED_XDP, ACTION_ANSWER };
	return verdict;
}

/* --- record ----------------------------------------------------------------------------------------- */

/*
 * Remembers a target of an entry that collects them, by what came of it. Not those of this host's own addresses and next
 * hops, and of those that are never answered: whoever is on the link asks for these all the time.
 */
static __always_inline void target_remember(const struct entry *entry, const struct rule *rule, const struct scratch *s,
					    struct verdict verdict)
{
	struct address_key key = { .scope = entry->id, .address = s->ns.target };
	bool is_event = verdict.action == ACTION_HAND_UP || verdict.action == ACTION_HOLD;
	__u64 now = is_event ? s->handed_up : bpf_ktime_get_ns();
	struct recent *recent, fresh = {
		.first = now,
		.last = now,
		.count = 1,
		.source = s->source,
		.outcome = verdict.outcome,
	};
	bool is_answered = rule && rule->decision != DECISION_IGNORE;

	if (rule ? rule->decision < DECISION_IGNORE : verdict.outcome != OUTCOME_UNMATCHED)
		return;
	__builtin_memcpy(fresh.source_mac, s->frame.h_source, ETH_ALEN);
	recent = is_answered ? recent_targets.lookup(&key) : other_targets.lookup(&key);
	if (recent) {
		recent->last = now;
		recent->source = fresh.source;
		__builtin_memcpy(recent->source_mac, fresh.source_mac, ETH_ALEN);
		recent->outcome = fresh.outcome;
		__sync_fetch_and_add(&recent->count, 1);
	} else if (is_answered) {
		recent_targets.update(&key, &fresh);
	} else {
		other_targets.update(&key, &fresh);
	}
}

static __always_inline void rule_count(__u32 id, enum outcome outcome)
{
	int key = id;
	struct rule_counter *rule_counter = rule_counters.lookup(&key);

	if (rule_counter)
		rule_counter->outcome[outcome]++;
}

/*
 * The one exit of every solicitation: counts the outcome and says what becomes of the frame. `reaches_others`: if
 * passed, it reaches other stations behind the port, one of which may hold the target.
 */
static __always_inline int ns_record(struct entry_counter *counter, const struct rule *rule, struct verdict verdict,
				     bool reaches_others)
{
	enum outcome outcome = verdict.outcome;

	if (verdict.action == ACTION_HOLD)
		return XDP_PASS;
	if (verdict.action != ACTION_HAND_UP) {
		counter->outcome[outcome]++;
		if (outcome == OUTCOME_RATE_LIMITED)
			counter->limit[verdict.limit]++;
		if (rule)
			rule_count(rule->id, outcome);
	}
	if (verdict.action == ACTION_PASS)
		return XDP_PASS;
	if (verdict.action == ACTION_ANSWER)
		return XDP_TX;
	if (reaches_others &&
	    (outcome == OUTCOME_PENDING || outcome == OUTCOME_LOST || outcome == OUTCOME_RATE_LIMITED))
		return XDP_PASS;
	return XDP_DROP; /* lost or refused ones as well: if passed, a flood would reach the stack */
}

/*
 * Ends the record of a solicitation, with what became of it, and tells who looks, if it is wanted: of one whose outcome
 * Python or hidden_tag() finds, if somebody waits for that (`is_awaited`).
 */
static __always_inline void trace_end(struct packet p, const struct frame *f, const struct ended *ended,
				      bool is_awaited)
{
	bool is_decided = ended->action != ACTION_HAND_UP && ended->action != ACTION_HOLD;
	struct trace_filter *filter;
	struct trace_record *record;
	int key = 0;

	filter = trace_filters.lookup(&key);
	record = trace_space.lookup(&key);
	if (!filter || !record)
		return;
	if (is_decided ? !(filter->outcomes >> ended->outcome & 1) || !is_rule_traced(filter, ended->rule)
		       : !is_awaited)
		return;
	record->kind = is_decided ? TRACE_DECIDED : ended->action == ACTION_HOLD ? TRACE_HELD : TRACE_HANDED_UP;
	record->outcome = ended->outcome;
	record->reason = ended->check == CHECK_FAILED ? ended->reason : TRACE_NOTHING;
	record->limit = ended->outcome == OUTCOME_RATE_LIMITED ? ended->limit : TRACE_NOTHING;
	record->rule = ended->rule;
	record->decision = ended->decision;
	record->is_answered = 0;
	if (ended->action == ACTION_ANSWER)
		trace_advert(p, f, record);
	trace_put(record, is_decided);
}

/* Notes a valid solicitation that goes on to the kernel, so that hidden_tag() can compare it with what it sees. */
static __always_inline void passed_note(const struct scratch *s, __u32 ifindex, bool is_held)
{
	int key = 0;
	struct passed *passed = last_passed.lookup(&key);

	if (!passed)
		return;
	__builtin_memcpy(&passed->head, &s->ns, sizeof(passed->head));
	passed->ifindex = ifindex;
	passed->is_held = is_held;
	passed->tags = s->frame.tag_flags & EVENT_TAG_COUNT;
	passed->message = s->frame.message - s->frame.l3;
}

/*
 * Notes that a solicitation with tags in the frame, valid or not, goes on to the kernel: hidden_tag() is to recognise
 * it when other frames have come in between, or on another CPU. A driver (native mode) hands on several at once, and
 * RPS spreads them.
 */
static __always_inline void tagged_note(struct packet p, const struct frame *f)
{
	__u32 tags = f->tag_flags & EVENT_TAG_COUNT;
	struct tagged *tagged;
	__u16 checksum;
	int key;

	if (p.hook == HOOK_TC || !tags)
		return;
	if (packet_load(p, f->message + CHECKSUM_AT, &checksum, sizeof(checksum)))
		return;
	key = checksum % TAGGED_MAX;
	tagged = tagged_passed.lookup(&key);
	if (tagged)
		tagged->when[tags == 1 ? 0 : 1] = bpf_ktime_get_ns() >> TAGGED_SHIFT;
}

/*
 * Shows a solicitation that is recorded to who looks: one who traces, and the tap, which compares what goes on to the
 * kernel with its note.
 */
static __always_inline int ns_show(struct packet p, const struct entry *entry, const struct rule *rule,
				   struct scratch *s, struct verdict verdict, struct checked checked, int action)
{
	/* from the map, or the verifier would walk what follows once for each that there may be */
	s->ended = (struct ended){
		.action = verdict.action,
		.outcome = verdict.outcome,
		.limit = verdict.limit,
		.check = checked.check,
		.reason = checked.reason,
		.xdp_action = action,
		.decision = rule ? rule->decision : TRACE_NOTHING,
		.rule = rule ? rule->id : NO_RULE,
	};
	if (entry->flags & ENTRY_TRACED && s->traced_at)
		trace_end(p, &s->frame, &s->ended, s->event_flags & EVENT_TRACED);
	if (p.hook == HOOK_XDP && s->ended.xdp_action == XDP_PASS && entry->flags & ENTRY_TAPPED) {
		tagged_note(p, &s->frame);
		if (s->ended.check == CHECK_PASSED)
			passed_note(s, packet_ifindex(p), s->ended.action == ACTION_HOLD);
	}
	return s->ended.xdp_action;
}

/* --- plain ------------------------------------------------------------------------------------------- */

#define NOT_PLAIN (-1)

/* A word that is another one as soon as another table begins to go into the maps, and what it was. */
struct seen {
	const u64 *place;
	u64 word;
};

static __always_inline bool see(struct seen *seen, const u64 *place)
{
	seen->place = place;
	seen->word = place ? *(volatile const u64 *)place : 0;
	return place;
}

/*
 * As entry_match(), and with its key in the map; an untagged frame's is found by the port's index: Python takes the word
 * that leads to it away before it changes anything of that port's.
 */
static __always_inline const struct entry *plain_entry(struct packet p, const struct plain *f, struct seen *seen)
{
	__u32 ifindex = packet_ifindex(p);
	struct scratch *s;
	const struct entry *entry;
	int index;

	if (!f->tags) {
		index = ifindex % PORT_PLACES;
		if (see(seen, port_places.lookup(&index)) && seen->word >> 32 == ifindex) {
			index = seen->word;
			entry = port_entries.lookup(&index);
			if (entry)
				return entry;
		}
	}
	index = 0;
	s = scratch_space.lookup(&index);
	return see(seen, table_writes.lookup(&index)) && s ? entry_match(p, f->tci, &s->entry_key) : NULL;
}

/* Whether what was found since then may be of two tables. */
static __always_inline bool is_outdated(const struct seen *seen)
{
	read_barrier();
	return *(volatile const u64 *)seen->place != seen->word;
}

/* As target_match(), of a target that is no rule of its own. */
static __always_inline const struct rule *plain_match(const struct entry *entry, const struct in6_addr *target)
{
	const struct rule *rule;

	if (!is_filtered_out(entry->exact_filter, target)) {
		rule = address_match(entry, target);
		if (rule)
			return rule;
	}
	if (entry->has_only)
		return is_within(target, &entry->only_prefix, &entry->only_mask) ? &entry->only_rule : NULL;
	return prefix_match(entry, target);
}

/* Whether a target is routed. If it isn't, that is left to the long way, which would ask for it once more. */
static __always_inline bool is_plain_routed(struct packet p, const struct entry *entry, const struct rule *rule,
					    const struct plain_message *m)
{
	enum presence presence = target_routed(p, entry, rule, &m->ip6h.saddr, &m->ns.target);
	struct scratch *s;
	int key = 0;

	if (presence == PRESENCE_THERE)
		return true;
	s = scratch_space.lookup(&key);
	if (s)
		s->left_route = presence + 1;
	return false;
}

/* Whether a target is there, and Python has nothing to know of that. */
static __always_inline bool is_plain_target(struct packet p, const struct entry *entry, const struct rule *rule,
					    const struct plain_message *m)
{
	struct address_key key = { .scope = rule->via_set, .address = m->ns.target };
	struct present_target *present;

	if (rule->flags & RULE_SOURCE_INTERFACE)
		return false;
	if (rule->decision == DECISION_STATIC)
		return true;
	if (rule->decision == DECISION_ROUTE)
		return is_plain_routed(p, entry, rule, m);
	if (rule->decision != DECISION_NEIGHBOUR)
		return false;
	present = present_targets.lookup(&key);
	if (!present || present->flags & PRESENT_STALE)
		return false;
	present->asked = bpf_ktime_get_coarse_ns() / 1000000000;
	return true;
}

/* Writes the answer. False: nothing was changed. */
static __always_inline bool plain_advertise(struct packet p, const struct plain *f, const __u8 *mac, __u16 rule_flags)
{
	const struct plain_message *m = f->message;

	if (p.hook == HOOK_XDP) {
		plain_write(f, mac, rule_flags);
		return true;
	}
	return advert_store(p, f->l3, &m->ns.target, mac, rule_flags, &m->ip6h.saddr, &m->ns.target,
			    (const __u8 *)m->option + 2);
}

/* The same, for who looks on as well. */
static __always_inline bool plain_answer(struct packet p, const struct plain *f, const struct answerer *by,
					 const struct rule *rule)
{
	struct frame frame = {
		.l3 = f->l3,
		.message = f->l3 + sizeof(struct ipv6hdr),
		.length = PLAIN_LENGTH,
		.tci = { f->tci[0], f->tci[1] },
	};
	struct ended ended = {
		.action = ACTION_ANSWER,
		.outcome = OUTCOME_ANSWERED_XDP,
		.check = CHECK_PASSED,
		.decision = rule->decision,
		.rule = rule->id,
	};
	bool is_traced;

	if (!(by->flags & ENTRY_TRACED))
		return plain_advertise(p, f, by->mac, rule->flags);
	__builtin_memcpy(frame.h_source, f->eth->h_source, ETH_ALEN);
	is_traced = trace_begin(p, by->id, &frame);
	if (!plain_advertise(p, f, by->mac, rule->flags))
		return false;
	if (is_traced)
		trace_end(p, &frame, &ended, false);
	return true;
}

/*
 * The short way, of most solicitations that are answered: XDP_TX. NOT_PLAIN: it says nothing about this frame and has
 * changed nothing, and ns_handle() begins anew. What it decides, it decides as that does. Of an entry's keys that stand in
 * its way, Python knows (ENTRY_PLAIN); others are of the frame.
 */
static __always_inline int ns_answer_plain(struct packet p)
{
	struct entry_counter *entry_counter;
	struct rule_counter *rule_counter;
	const struct entry *entry;
	const struct rule *found;
	struct answerer by;
	struct rule rule;
	struct plain f;
	struct seen seen;
	enum plainness plainness = plain_find(p, &f);
	int rule_id;

	if (plainness != PLAIN_NS)
		return plainness == PLAIN_NOTHING ? XDP_PASS : NOT_PLAIN;
	entry = plain_entry(p, &f, &seen);
	if (!entry || !(entry->flags & ENTRY_PLAIN))
		return NOT_PLAIN;
	if (entry->flags & (ENTRY_GUARDED | ENTRY_SAMPLED) && !f.tags)
		return NOT_PLAIN; /* it may be held, or was */
	if (entry->flags & ENTRY_HEARS && !is_link_local(&f.message->ip6h.saddr))
		return NOT_PLAIN; /* its source may be news */
	if (is_plain_ignored(&f, entry))
		return NOT_PLAIN;
	found = plain_match(entry, &f.message->ns.target);
	if (!found)
		return NOT_PLAIN;
	rule = *found; /* a copy, or the verifier would walk the rest once for each map that it may be in */
	if (!is_plain_target(p, entry, &rule, f.message))
		return NOT_PLAIN;
	by = answerer_of(entry);
	if (is_outdated(&seen))
		return NOT_PLAIN;
	rule_id = rule.id;
	entry_counter = entry_counters.lookup(&by.id);
	rule_counter = rule_counters.lookup(&rule_id);
	if (!entry_counter || !rule_counter || !plain_answer(p, &f, &by, &rule))
		return NOT_PLAIN;
	entry_counter->outcome[OUTCOME_ANSWERED_XDP]++;
	rule_counter->outcome[OUTCOME_ANSWERED_XDP]++;
	return XDP_TX;
}

/* --- program --------------------------------------------------------------------------------------- */

/* All that becomes of a frame that isn't plain, in the words of XDP. */
static __always_inline int ns_handle(struct packet p)
{
	struct entry_counter *counter;
	const struct entry *entry;
	const struct rule *rule = NULL;
	struct frame f;
	struct verdict verdict = pass(OUTCOME_UNMATCHED);
	struct checked checked;
	struct scratch *s;
	int key, action;

	if (!ns_find(p, &f))
		return XDP_PASS;
	key = 0; /* here, so that nothing is written for frames that leave before */
	s = scratch_space.lookup(&key);
	if (!s || !writes_note(s, table_writes.lookup(&key)))
		return XDP_PASS;
	s->frame = f; /* read this copy from here on: the verifier would follow each state of `f` separately */
	s->traced_at = 0;
	s->found_route = s->left_route;
	s->left_route = 0;
	entry = &s->entry;
	if (!entry_find(p, s)) {
		tagged_note(p, &s->frame);
		return XDP_PASS;
	}
	key = entry->id;
	counter = entry_counters.lookup(&key);
	if (!counter || is_taken(p, entry, &s->frame))
		return XDP_PASS;

	if (entry->flags & ENTRY_TRACED)
		s->traced_at = trace_begin(p, entry->id, &s->frame);
	checked = ns_check(p, s);
	if (checked.check == CHECK_PASSED)
		verdict.outcome = rule_find(p, s);
	if (checked.check == CHECK_FAILED) {
		counter->reason[checked.reason]++;
		verdict.outcome = OUTCOME_INVALID;
	} else if (checked.check == CHECK_PASSED && s->has_rule) {
		rule = &s->rule;
		verdict = ns_decide(p, entry, rule, s);
		if (verdict.action == ACTION_WANTS_ANSWER)
			verdict = ns_answer(p, entry, rule, s);
	}
	if (entry->collect && checked.check == CHECK_PASSED)
		target_remember(entry, rule, s, verdict);
	action = ns_record(counter, rule, verdict, entry->flags & ENTRY_SHARED && is_multicast_ether(f.h_dest));
	/* what nobody wants to see has no record, and nothing is noted for one */
	if ((entry->flags & ENTRY_TRACED && s->traced_at) || entry->flags & ENTRY_TAPPED)
		action = ns_show(p, entry, rule, s, verdict, checked, action);
	return action;
}

/* The short way, then the one that has all: nothing but the frame goes from the one to the other. */
static __always_inline int ns_filtered(struct packet p)
{
	int action = ns_answer_plain(p);

	return action == NOT_PLAIN ? ns_handle(p) : action;
}

int ns_filter(struct xdp_md *ctx)
{
	return ns_filtered((struct packet){ ctx, HOOK_XDP });
}

int ns_filter_tc(struct __sk_buff *skb)
{
	struct packet p = { skb, HOOK_TC };

	return hook_action(p, ns_filtered(p));
}

/* --- tap: tags that stand beside the frame ------------------------------------------------------------- */

#define TOLD_PAUSE 100000000ULL /* nanoseconds */

/* Tells who looks what became of one that was held, if it is wanted. */
static __always_inline void trace_found(const struct passed *passed, enum outcome outcome)
{
	struct trace_filter *filter;
	struct trace_record *record;
	int key = 0;

	filter = trace_filters.lookup(&key);
	record = trace_space.lookup(&key);
	if (!filter || !record || !(filter->outcomes >> outcome & 1))
		return;
	record->time = passed->traced_at;
	record->rule = passed->event.rule;
	record->target = passed->event.target;
	record->source = passed->event.source;
	record->kind = TRACE_FOUND;
	record->outcome = outcome;
	record->kept = 0;
	record->size = 0;
	record->is_answered = 0;
	trace_put(record, true);
}

/* Counts one that was held, and didn't become an event. */
static __always_inline void held_record(const struct passed *passed, enum outcome outcome)
{
	struct address_key target = { .scope = passed->entry, .address = passed->event.target };
	int key = passed->entry;
	struct entry_counter *counter = entry_counters.lookup(&key);
	struct recent *recent;

	if (counter)
		counter->outcome[outcome]++;
	rule_count(passed->event.rule, outcome);
	if (passed->event.flags & EVENT_TRACED)
		trace_found(passed, outcome);
	recent = recent_targets.lookup(&target);
	if (recent)
		recent->outcome = outcome;
}

/*
 * Whether to tell of a frame that has a tag, of whatever kind it is: the first on a port with an entry for what seems
 * to be untagged. What XDP answers doesn't come here, but the next frame of the asker does. Whether its tag stood in
 * the frame or beside it can't be told.
 */
static __always_inline bool first_tag_take(struct __sk_buff *skb, struct passed *passed)
{
	struct entry_key key = { .ifindex = skb->ifindex };
	struct entry *entry;
	__u64 now;

	entry = entries.lookup(&key);
	if (!entry) {
		key.outer = VLAN_ANY;
		key.inner = VLAN_ANY;
		entry = entries.lookup(&key);
	}
	if (!entry || !(entry->flags & ENTRY_TAGLESS))
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
 * seen in the frame just now, as many as it has here. What counts as a solicitation here has to be the same as in
 * ns_parse(), or there would be no note of it.
 */
static __always_inline bool is_tag_hidden(struct __sk_buff *skb, __u32 l3, __u32 tags, const struct passed *passed,
					  __u64 now)
{
	struct tagged *tagged;
	__u16 checksum;
	__u8 head[8];
	int key;

	if (tags != passed->tags + 1 || tags > MAX_TAGS)
		return false; /* at most one tag stands beside a frame */
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

/* Hands up one that was held, and notes that: where a program is at tc as well, it sees the frame next. */
static __always_inline void held_hand_up(struct __sk_buff *skb, struct passed *passed)
{
	struct ns_event event = passed->event;

	passed->is_held = 0;
	if (!event_submit(skb, &event)) {
		held_record(passed, OUTCOME_LOST);
		return;
	}
	passed->taken = passed->head;
	passed->taken_ifindex = skb->ifindex;
	passed->taken_at = bpf_ktime_get_ns();
}

/*
 * The filter of a packet socket on a port: takes those solicitations of which ns_filter() didn't see all VLAN tags,
 * since the kernel holds the outer one beside the frame (skb->vlan_tci). A NIC's receive offload puts it there, or the
 * sender's kernel, where both ends are one machine's (veth). A program in generic mode runs before the kernel takes the
 * tags out of the frames, a tap behind that, on the same CPU, so the number of tags tells the one from the other.
 * What was answered or consumed never comes here; what is held is handed up from here, if it has no such tag.
 * It also takes the first frame with any tag of a port, and cuts that to FIRST_TAG bytes.
 */
int hidden_tag(struct __sk_buff *skb)
{
	__u32 l3 = sizeof(struct ethhdr), tags = skb->vlan_present;
	struct passed *passed;
	__be16 proto;
	__u64 head, now;
	int key = 0;

	passed = last_passed.lookup(&key);
	if (!passed)
		return 0;
	passed->taken_at = 0;
	if (bpf_skb_load_bytes(skb, 12, &proto, sizeof(proto)))
		return 0;
	if (tags && passed->ifindex != skb->ifindex)
		return first_tag_take(skb, passed) ? FIRST_TAG : 0;
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
	/*
	 * a note is used for one frame only, the next one here: else an invalid copy of it, with a tag, would be
	 * believed
	 */
	passed->ifindex = 0;
	if (bpf_skb_load_bytes(skb, l3 + passed->message, &head, sizeof(head)) || head != passed->head)
		return 0;
	if (tags <= passed->tags) {
		if (passed->is_held)
			held_hand_up(skb, passed);
		return 0;
	}
	if (passed->is_held) {
		passed->is_held = 0;
		held_record(passed, OUTCOME_MONITORED);
	}
	now = bpf_ktime_get_ns();
	if (passed->told_ifindex == skb->ifindex && now - passed->told < TOLD_PAUSE)
		return 0; /* of a flood, the first one is enough */
	if (!is_tag_hidden(skb, l3, tags, passed, now))
		return 0;
	passed->told = now;
	passed->told_ifindex = skb->ifindex;
	return sizeof(struct ethhdr); /* bytes that the tap gets; 0 is none */
}
