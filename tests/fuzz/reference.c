/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is to become of a frame: RFC 4861 and related RFCs, step by step. It is to be compared with the RFCs' text by
 * eye, so it is as plain as it can be: bytes are compared with numbers of the RFCs, and each list is walked from its
 * begin to its end. Nothing of bpf/ns_filter.c is in it, nor of npd6_xdp/.
 */
#include <string.h>

#include "reference.h"

/* --- addresses -------------------------------------------------------------------------------------- */

static const uint8_t unspecified[16];                               /* ::  */
static const uint8_t loopback[16] = { [15] = 1 };                   /* ::1 */
static const uint8_t all_nodes[16] = { 0xff, 0x02, [15] = 1 };      /* ff02::1 */
static const uint8_t all_nodes_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 }; /* RFC 2464 §7 */
static const uint8_t no_mac[6];

static int is(const uint8_t *one, const uint8_t *other)
{
	return memcmp(one, other, 16) == 0;
}

static int is_mac(const uint8_t *one, const uint8_t *other)
{
	return memcmp(one, other, 6) == 0;
}

/* RFC 4291 §2.7: ff00::/8. */
static int is_multicast(const uint8_t *a)
{
	return a[0] == 0xff;
}

/* RFC 4291 §2.5.6: fe80::/10. */
static int is_link_local(const uint8_t *a)
{
	return a[0] == 0xfe && a[1] >= 0x80 && a[1] <= 0xbf;
}

/* RFC 4291 §2.7.1: ff02:0:0:0:0:1:ff00::/104. */
static int is_solicited_node(const uint8_t *a)
{
	static const uint8_t prefix[13] = { 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff };

	return memcmp(a, prefix, 13) == 0;
}

/* The first bit of an Ethernet address that is sent says whether a group has it. */
static int is_group_mac(const uint8_t *m)
{
	return m[0] % 2 == 1;
}

/* How many bits two addresses have in common, from the left. */
static int common_bits(const uint8_t *one, const uint8_t *other)
{
	int bit = 0;

	while (bit < 128 && one[bit / 8] == other[bit / 8])
		bit += 8;
	for (; bit < 128; bit++) {
		int place = 7 - bit % 8;

		if ((one[bit / 8] >> place) % 2 != (other[bit / 8] >> place) % 2)
			break;
	}
	return bit;
}

static int is_among(const uint8_t *a, const address *list, int count)
{
	for (int i = 0; i < count; i++)
		if (is(a, list[i].byte))
			return 1;
	return 0;
}

static int is_within(const uint8_t *a, const struct span *list, int count)
{
	for (int i = 0; i < count; i++)
		if (memcmp(a, list[i].first.byte, 16) >= 0 && memcmp(a, list[i].last.byte, 16) <= 0)
			return 1;
	return 0;
}

static int be16(const uint8_t *p)
{
	return p[0] * 256 + p[1];
}

/* RFC 1071 §4.1: the sum of 16-bit words, with what is carried added again; an odd byte is padded with zero. */
static uint32_t add_words(uint32_t sum, const uint8_t *p, int length)
{
	for (int i = 0; i + 1 < length; i += 2)
		sum += be16(p + i);
	if (length % 2 == 1)
		sum += p[length - 1] * 256;
	while (sum > 0xffff)
		sum = sum % 0x10000 + sum / 0x10000;
	return sum;
}

/* RFC 8200 §8.1: the pseudo-header is the addresses, the length of the message, and its next header, 58. */
static uint32_t sum_of(const uint8_t *source, const uint8_t *destination, const uint8_t *message, int length)
{
	uint32_t sum = add_words(0, source, 16);

	sum = add_words(sum, destination, 16);
	return add_words(sum + length + 58, message, length);
}

uint16_t checksum(const uint8_t *source, const uint8_t *destination, const uint8_t *message, int length)
{
	uint32_t sum = sum_of(source, destination, message, length);
	uint8_t complement[2] = { (uint8_t)~message[2], (uint8_t)~message[3] };

	/* takes the field out again: one's complement subtraction is addition of the complement */
	return ~add_words(sum, complement, 2);
}

/* --- the frame --------------------------------------------------------------------------------------- */

/* A Neighbor Solicitation, and where in the frame its parts stand. */
struct solicitation {
	const uint8_t *to, *from; /* Ethernet */
	int tags;                 /* how many */
	const uint8_t *tag[2];    /* 4 bytes each, the outer first */
	int outer, inner;         /* VLAN ids: 0 for none */
	const uint8_t *ip, *source, *destination;
	int extended, fragment;
	const uint8_t *message;
	int length; /* of the message, by the IPv6 header; it may reach past the frame */
	const uint8_t *target;
	const uint8_t *link_layer; /* what the source link-layer address option says; NULL: nothing of use */
};

/*
 * Whether it is an ICMPv6 message of type 135 that is looked at (docs/architecture.md: up to two VLAN tags, up to two
 * headers of options, up to three extension headers in all). All else is none of our business.
 */
static int is_solicitation(const uint8_t *frame, int size, struct solicitation *s)
{
	int at = 12, options = 0, next;

	memset(s, 0, sizeof(*s));
	s->to = frame;
	s->from = frame + 6;
	/* IEEE 802.1Q: a tag is its type, 0x8100 or 0x88a8, and 16 bits, the last twelve of which are the VLAN's id */
	while (at + 2 <= size && (be16(frame + at) == 0x8100 || be16(frame + at) == 0x88a8)) {
		int id;

		if (s->tags == 2 || at + 4 > size)
			return 0;
		id = be16(frame + at + 2) % 4096;
		s->tag[s->tags++] = frame + at;
		/* an id of 0 names no VLAN */
		if (id != 0 && s->outer == 0)
			s->outer = id;
		else if (id != 0)
			s->inner = id;
		at += 4;
	}
	if (at + 2 > size || be16(frame + at) != 0x86dd) /* RFC 2464 §3 */
		return 0;
	at += 2;

	if (at + 40 > size || frame[at] / 16 != 6) /* RFC 8200 §3 */
		return 0;
	s->ip = frame + at;
	s->source = s->ip + 8;
	s->destination = s->ip + 24;
	s->length = be16(s->ip + 4);
	next = s->ip[6];
	at += 40;

	for (int headers = 0; next != 58; headers++) {
		int length;

		/* RFC 8200 §4: each has 8 bytes at the least, and begins with the number of what follows */
		if (headers == 3 || at + 8 > size)
			return 0;
		if (next == 44) { /* §4.5: a fragment header */
			if (be16(frame + at + 2) / 8 != 0)
				return 0; /* not the first one: the message's begin isn't here */
			s->fragment = 1;
			length = 8;
		} else if (next == 60 || (next == 0 && headers == 0)) {
			/* §4.6, §4.3: options, for the destination, or for each hop; the latter "only immediately after" (§4.1) */
			if (++options > 2)
				return 0;
			length = 8 + 8 * frame[at + 1];
		} else {
			return 0;
		}
		if (length > s->length)
			return 0; /* it doesn't end within the packet */
		next = frame[at];
		at += length;
		s->length -= length;
		s->extended = 1;
	}
	if (at >= size || s->length == 0 || frame[at] != 135) /* RFC 4861 §4.3 */
		return 0;
	s->message = frame + at;
	s->target = s->message + 8;
	return 1;
}

/* RFC 4861 §7.1.1: why it is to be discarded silently, by the first check that says so; NONE if it is valid. */
static int invalid(const uint8_t *frame, int size, struct solicitation *s)
{
	int has_link_layer = 0;

	/* A10, RFC 6980 §5: "Nodes MUST silently ignore" Neighbor Solicitations "if carrying an IPv6 fragmentation header" */
	if (s->fragment)
		return FRAGMENT;
	/* A4: "ICMP length (derived from the IP length) is 24 or more octets"; and it is all there */
	if (s->length < 24 || s->message + s->length > frame + size)
		return LENGTH;
	/* A1: "The IP Hop Limit field has a value of 255" */
	if (s->ip[7] != 255)
		return HOP_LIMIT;
	/* A3: "ICMP Code is 0" */
	if (s->message[1] != 0)
		return CODE;
	/* A2: "ICMP Checksum is valid": the sum with the field in it is all ones (RFC 1071 §1) */
	if (sum_of(s->source, s->destination, s->message, s->length) != 0xffff)
		return CHECKSUM;
	/* A5: "Target Address is not a multicast address" */
	if (is_multicast(s->target))
		return TARGET;
	/* A9, RFC 4291 §2.7: multicast addresses "must not be used as source"; §2.5.3: nor ::1 "outside of a single node" */
	if (is_multicast(s->source) || is(s->source, loopback))
		return SOURCE;
	/* A6: "All included options have a length that is greater than zero"; §4.6: in units of 8 octets */
	for (int at = 24; at < s->length;) {
		const uint8_t *option = s->message + at;

		if (at + 2 > s->length || option[1] == 0 || at + 8 * option[1] > s->length)
			return OPTION_LENGTH;
		if (option[0] == 1) {
			has_link_layer = 1;
			/* the first of the one length that Ethernet's has (RFC 2464 §6) counts */
			if (option[1] == 1 && s->link_layer == NULL)
				s->link_layer = option + 2;
		}
		at += 8 * option[1];
	}
	if (is(s->source, unspecified)) {
		/* A7: "If the IP source address is the unspecified address, the IP destination address is a solicited-node
		 * multicast address" */
		if (!is_solicited_node(s->destination))
			return DAD_DESTINATION;
		/* A8: "[...] there is no source link-layer address option in the message" */
		if (has_link_layer)
			return DAD_SLLAO;
	}
	return NONE;
}

/* --- the answer -------------------------------------------------------------------------------------- */

/*
 * Where an advertisement comes from, if not from the target (na_source = "interface"): an address of the destination's
 * scope, the longest common prefix first (RFC 6724 §5, rules 2 and 8), or a link-local one. Counts those to choose from.
 */
static const uint8_t *interface_source(const struct entry *entry, const uint8_t *destination, int *choices)
{
	int wants_link_local = is_link_local(destination) || is_multicast(destination);
	int has_scope = 0;
	const uint8_t *best = NULL;

	*choices = 0;
	for (int i = 0; i < entry->sources; i++)
		if (is_link_local(entry->source[i].byte) == wants_link_local)
			has_scope = 1;
	for (int i = 0; i < entry->sources; i++) {
		const uint8_t *a = entry->source[i].byte;

		if (is_link_local(a) != (has_scope ? wants_link_local : 1))
			continue;
		*choices += 1;
		if (best == NULL || common_bits(a, destination) > common_bits(best, destination))
			best = a;
	}
	return best;
}

/* RFC 4861 §7.2.4, §4.4, and §7.2.8 for what a proxy does otherwise. */
static int advertise(const struct entry *entry, const struct rule *rule, const struct solicitation *s,
		     const uint8_t *asker, uint8_t *frame)
{
	int is_dad = is(s->source, unspecified), at = 12, choices;
	const uint8_t *destination = is_dad ? all_nodes : s->source, *source = s->target;
	uint8_t *ip, *message;
	uint16_t sum;

	if (rule->by_interface) {
		const uint8_t *own = interface_source(entry, destination, &choices);

		if (own != NULL)
			source = own;
	}
	memcpy(frame, is_dad ? all_nodes_mac : asker, 6);
	memcpy(frame + 6, entry->mac.byte, 6);
	for (int i = 0; i < s->tags; i++) {
		memcpy(frame + at, s->tag[i], 4); /* the tags as they came */
		at += 4;
	}
	frame[at] = 0x86;
	frame[at + 1] = 0xdd;

	ip = frame + at + 2;
	memset(ip, 0, 40 + 32);
	ip[0] = 0x60; /* version 6; traffic class and flow label 0 */
	ip[5] = 32;   /* payload length */
	ip[6] = 58;   /* ICMPv6 */
	ip[7] = 255;  /* hop limit */
	memcpy(ip + 8, source, 16);
	memcpy(ip + 24, destination, 16);

	message = ip + 40;
	message[0] = 136; /* type; code 0 */
	/* R; S, "If the Source Address is unspecified [...] zero", else one; O "MUST be set to zero" of a proxy's (§7.2.8) */
	message[4] = 0x80 * rule->router + 0x40 * !is_dad;
	memcpy(message + 8, s->target, 16);
	message[24] = 2; /* target link-layer address, */
	message[25] = 1; /* of 8 bytes */
	memcpy(message + 26, entry->mac.byte, 6);
	sum = checksum(source, destination, message, 32);
	message[2] = sum / 256;
	message[3] = sum % 256;
	return at + 2 + 40 + 32;
}

/* What Python is handed, in the machine's byte order where it isn't the wire's: npd6_xdp/core/event.py. */
static void tell(const struct rule *rule, const struct solicitation *s, const uint8_t *asker, int flags, uint8_t *event)
{
	uint32_t number = rule->number;
	uint16_t event_flags = s->tags + flags;

	if (s->tags > 0 && be16(s->tag[0]) == 0x88a8)
		event_flags += TAG_OUTER_8021AD;
	if (s->tags > 1 && be16(s->tag[1]) == 0x88a8)
		event_flags += TAG_INNER_8021AD;
	memset(event, 0, EVENT_SIZE);
	memcpy(event, s->target, 16);
	memcpy(event + 16, s->source, 16);
	memcpy(event + 36, &number, 4);
	memcpy(event + 40, asker, 6);
	for (int i = 0; i < s->tags; i++)
		memcpy(event + 46 + 2 * i, s->tag[i] + 2, 2);
	memcpy(event + 50, &event_flags, 2);
}

/* --- who is there ------------------------------------------------------------------------------------- */

/* The [[interface]] that speaks for a frame: the one for just its VLANs, else the one for any. */
static const struct entry *entry_for(const struct scene *scene, int port, const struct solicitation *s)
{
	const struct entry *any = NULL;

	for (int i = 0; i < scene->entries; i++) {
		const struct entry *entry = &scene->entry[i];

		if (entry->port != port)
			continue;
		if (entry->outer == s->outer && entry->inner == s->inner)
			return entry;
		if (entry->outer == NONE)
			any = entry;
	}
	return any;
}

/* The rule with the longest prefix that holds the target; of a link-local one, only a rule for just that address. */
static const struct rule *rule_for(const struct entry *entry, const uint8_t *target)
{
	const struct rule *best = NULL;

	for (int i = 0; i < entry->rules; i++) {
		const struct rule *rule = &entry->rule[i];

		if (is_link_local(target) && rule->length < 128)
			continue;
		if (common_bits(target, rule->network.byte) < rule->length)
			continue;
		if (best == NULL || rule->length > best->length)
			best = rule;
	}
	return best;
}

/* A rule owns its prefix; what its `include` leaves out, or its `exclude` takes out, is ignored. */
static int is_left_out(const struct rule *rule, const uint8_t *target)
{
	if (is_within(target, rule->exclude, rule->excludes))
		return 1;
	return rule->includes > 0 && !is_within(target, rule->include, rule->includes);
}

static struct host *known_host(struct scene *scene, int set, const uint8_t *target)
{
	for (int i = 0; i < scene->hosts; i++)
		if (scene->host[i].set == set && is(scene->host[i].address.byte, target))
			return &scene->host[i];
	return NULL;
}

/* 1 if the routing table leads to a target behind us, 0 if it doesn't, NONE if only the kernel can tell. */
static int is_routed(const struct scene *scene, const struct entry *entry, const struct rule *rule,
		     const uint8_t *target)
{
	const struct route *best = NULL;

	if (scene->asks_kernel) {
		for (int i = 0; i < scene->kepts; i++)
			if (scene->kept[i].entry == entry->number && is(scene->kept[i].target.byte, target))
				return scene->kept[i].is_there;
		return NONE;
	}
	for (int i = 0; i < scene->routes; i++) {
		const struct route *route = &scene->route[i];

		if (common_bits(target, route->network.byte) >= route->length &&
		    (best == NULL || route->length > best->length))
			best = route;
	}
	if (best == NULL || best->out == 0 || best->out == entry->l3)
		return 0;
	if (rule->vias == 0)
		return 1;
	for (int i = 0; i < rule->vias; i++)
		if (rule->via[i] == best->out)
			return 1;
	return 0;
}

static int is_refused_asker(const struct scene *scene, const struct entry *entry, const uint8_t *asker)
{
	for (int i = 0; i < scene->refused_askers; i++) {
		const struct refused_asker *refused_asker = &scene->refused_asker[i];

		if (refused_asker->entry == entry->number &&
		    (is_mac(refused_asker->mac.byte, no_mac) || is_mac(refused_asker->mac.byte, asker)))
			return 1;
	}
	return 0;
}

static int was_answered(const struct scene *scene, const struct entry *entry, const uint8_t *target)
{
	for (int i = 0; i < scene->answereds; i++) {
		if (scene->answered[i].entry == entry->number && is(scene->answered[i].target.byte, target))
			return 1;
	}
	return 0;
}

/* Whether an asker was heard last on another entry, by another MAC address, or never. Link-local ones don't count. */
static int is_news(const struct scene *scene, const struct entry *entry, const uint8_t *source, const uint8_t *asker)
{
	if (is(source, unspecified) || is_link_local(source))
		return 0;
	for (int i = 0; i < scene->heards; i++) {
		const struct heard *heard = &scene->heard[i];

		if (is(heard->address.byte, source))
			return heard->entry != entry->number || !is_mac(heard->mac.byte, asker);
	}
	return 1;
}

static void remember(struct scene *scene, const struct entry *entry, const uint8_t *source, const uint8_t *asker)
{
	int i = 0;

	while (i < scene->heards && !is(scene->heard[i].address.byte, source))
		i++;
	if (i == scene->heards)
		scene->heards++;
	scene->heard[i].entry = entry->number;
	memcpy(scene->heard[i].address.byte, source, 16);
	memcpy(scene->heard[i].mac.byte, asker, 6);
}

/* --- what becomes of it -------------------------------------------------------------------------------- */

static void count(struct verdict *verdict, int outcome, int action)
{
	verdict->outcome = outcome;
	verdict->action = action;
}

/* docs/operation.md, "Outcomes": each solicitation is counted under one outcome, here or by Python. */
void decide(struct scene *scene, int port, const uint8_t *frame, int size, struct verdict *verdict)
{
	struct solicitation s;
	const struct entry *entry;
	const struct rule *rule;
	const uint8_t *asker;
	struct host *host = NULL;
	int is_dad, onward, method, monitored, flags = 0, by_xdp, choices = 1;

	memset(verdict, 0, sizeof(*verdict));
	verdict->action = PASS;
	verdict->outcome = verdict->reason = verdict->limit = verdict->entry = verdict->rule = NONE;

	if (!is_solicitation(frame, size, &s))
		return;
	entry = entry_for(scene, port, &s);
	if (entry == NULL)
		return;
	verdict->entry = entry->number;
	verdict->reason = invalid(frame, size, &s);
	if (verdict->reason != NONE)
		return count(verdict, INVALID, PASS);
	is_dad = is(s.source, unspecified);
	/* the answer goes to the source link-layer address, if that is a station's; else to where the frame came from */
	asker = s.from;
	if (s.link_layer != NULL && !is_group_mac(s.link_layer) && !is_mac(s.link_layer, no_mac))
		asker = s.link_layer;

	/* what is never answered: our own, looped back; what is another station's; what has no station to be answered to */
	if (is_mac(s.from, entry->mac.byte) || is_mac(s.from, entry->port_mac.byte))
		return count(verdict, IGNORED, PASS);
	if (!is_group_mac(s.to) && !is_mac(s.to, entry->mac.byte) && !is_mac(s.to, entry->port_mac.byte))
		return count(verdict, IGNORED, PASS);
	if (is_group_mac(asker) || is_mac(asker, no_mac))
		return count(verdict, IGNORED, PASS);
	if (is(s.target, unspecified) || is(s.target, loopback))
		return count(verdict, IGNORED, PASS);

	/* the kernel answers for the interface's own addresses; a router on the link answers for itself */
	if (is_among(s.target, entry->own, entry->owns))
		return count(verdict, OWN, PASS);
	if (is_among(s.target, entry->next_hop, entry->next_hops))
		return count(verdict, IGNORED, PASS);

	rule = rule_for(entry, s.target);
	if (rule == NULL)
		return count(verdict, is_link_local(s.target) ? IGNORED : UNMATCHED, PASS);
	verdict->rule = rule->number;
	method = rule->method;
	if (method == METHOD_IGNORE || is_left_out(rule, s.target))
		return count(verdict, IGNORED, PASS);
	/* an address that the host has on another interface is there: Linux doesn't answer for it here */
	if (is_among(s.target, scene->elsewhere, scene->elsewheres))
		method = METHOD_STATIC;

	/* another station behind the port may hold the target, as long as it isn't known that we answer for it */
	onward = entry->shared && is_group_mac(s.to);
	/* tags were seen beside the port's frames: what seems to have none may be any VLAN's */
	monitored = entry->datapath == MONITOR || (entry->silent && s.outer == 0);
	if (method == METHOD_NEIGHBOUR || method == METHOD_KERNEL) {
		host = known_host(scene, rule->hosts, s.target);
		if (host == NULL)
			flags = MISS;
		else if (host->is_stale)
			flags = STALE;
	}
	/* RFC 4862 §5.4: any answer to a probe takes the address from the prober; our proxy entry would have one given */
	if (is_dad && !rule->defend)
		return count(verdict, DAD, method == METHOD_KERNEL && host != NULL && !monitored ? DROP : PASS);
	if (method == METHOD_ROUTE) {
		int there = is_routed(scene, entry, rule, s.target);

		if (there == 0)
			return count(verdict, ABSENT, PASS);
		if (there == NONE)
			flags = MISS;
	}
	/* of two edges, the one that has the address answers */
	if (entry->standby)
		return count(verdict, STANDBY, PASS);
	if (monitored)
		return count(verdict, MONITORED, PASS);
	if (method == METHOD_KERNEL && host != NULL)
		return count(verdict, KERNEL, PASS);
	/* what isn't found out to be there would fill the asker's cache, but for a probe, which leaves nothing there */
	if (entry->budgeted && method != METHOD_NEIGHBOUR && !is_dad && !was_answered(scene, entry, s.target)) {
		verdict->limit = LIMIT_NEW_TARGET;
		return count(verdict, RATE_LIMITED, onward ? PASS : DROP);
	}
	if (entry->hears && is_news(scene, entry, s.source, asker))
		flags += HEARD;

	/* from here on it is ours, and is answered: by XDP, or by Python, which is told of what it has to know */
	verdict->answer_length = advertise(entry, rule, &s, asker, verdict->answer);
	if (rule->by_interface)
		interface_source(entry, s.source, &choices);
	by_xdp = entry->datapath == HYBRID && !is_dad && !s.extended && !(flags & MISS) && choices == 1;
	if (entry->guarded && s.tags == 0) {
		/* a tag may stand beside the frame: it is looked at before anything is said or told */
		verdict->answer_length = 0;
		return count(verdict, NONE, PASS);
	}
	if (by_xdp) {
		count(verdict, ANSWERED_XDP, TX);
		if (flags == 0)
			return;
		flags += ANSWERED;
	} else if (flags & MISS && method == METHOD_NEIGHBOUR && is_refused_asker(scene, entry, asker)) {
		verdict->answer_length = 0;
		verdict->limit = LIMIT_CROWDED;
		return count(verdict, RATE_LIMITED, onward ? PASS : DROP);
	} else if (!scene->is_read) {
		verdict->answer_length = 0;
		return count(verdict, LOST, onward ? PASS : DROP);
	} else {
		count(verdict, NONE, flags & MISS && method == METHOD_NEIGHBOUR && onward ? PASS : DROP);
	}
	if (!scene->is_read)
		return;
	/* told once: that a host's entry is stale, and where somebody was heard */
	verdict->goes_up = 1;
	tell(rule, &s, asker, flags, verdict->event);
	if (flags & STALE)
		host->is_stale = 0;
	if (flags & HEARD)
		remember(scene, entry, s.source, asker);
}
