/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the reference knows of a configuration and of the machine, and what it says of a frame. configurations.py fills it. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdint.h>

#include "verdict.h" /* the outcomes, reasons and limits, which ground.py writes from npd6_xdp/core/verdict.py */

#define NONE (-1)

/* What BPF_PROG_TEST_RUN returns: enum xdp_action. */
enum {
	DROP = 1,
	PASS = 2,
	TX = 3
};

enum method {
	METHOD_STATIC,
	METHOD_ROUTE,
	METHOD_NEIGHBOUR,
	METHOD_KERNEL,
	METHOD_IGNORE
};
enum datapath {
	HYBRID,
	PYTHON,
	MONITOR
};

/* What an event says beside the number of tags. */
enum {
	TAG_OUTER_8021AD = 4,
	TAG_INNER_8021AD = 8,
	MISS = 16,
	STALE = 32,
	ANSWERED = 64,
	HEARD = 128
};

typedef struct {
	uint8_t byte[16];
} address;
typedef struct {
	uint8_t byte[6];
} mac;

/* The addresses from the first to the last, both included. */
struct span {
	address first, last;
};

/* One prefix of an [[interface.rule]]. A range is several. */
struct rule {
	address network;
	int32_t length; /* bits */
	int32_t number; /* of the rule's counters */
	int32_t method;
	int32_t router, defend, by_interface;
	int32_t hosts; /* which set of known hosts is asked, by neighbour and kernel */
	int32_t vias, includes, excludes;
	const int32_t *via; /* indexes of interfaces */
	const struct span *include, *exclude;
};

/* One [[interface]]. */
struct entry {
	int32_t number;       /* of its counters */
	int32_t port;         /* the index of the interface that its frames come in by */
	int32_t outer, inner; /* VLAN ids, 0 for none; both NONE: any */
	int32_t l3;           /* the index of the interface that the kernel takes its frames to come in by */
	int32_t datapath;
	int32_t shared, hears, guarded, silent;
	int32_t standby;   /* the other one of two edges answers */
	int32_t budgeted;  /* it has a budget of new targets, and it is spent for good: a time has no place here */
	mac mac, port_mac; /* what is advertised; the port's own, the same but on a bridge */
	int32_t rules, owns, next_hops, sources;
	const struct rule *rule;
	const address *own, *next_hop;
	const address *source; /* those of its own that an advertisement may come from */
};

/* A host that is known to be there (neighbour), or that has a proxy entry of ours (kernel). */
struct host {
	int32_t set, is_stale, was_stale;
	address address;
};

struct route {
	address network;
	int32_t length;
	int32_t out; /* index of an interface; 0: unreachable, blackhole, or by lo */
};

/* What the kernel said of a target that came in by an entry. */
struct kept {
	int32_t entry, is_there;
	address target;
};

/* Where an address was heard last, and with which MAC address. */
struct heard {
	int32_t entry;
	address address;
	mac mac;
};

/* A target that was answered lately on an entry with a budget of new ones. */
struct answered {
	int32_t entry;
	address target;
};

/* An asker that may not have targets resolved: a MAC address on an entry, or, if that is zero, all of the entry. */
struct refused_asker {
	int32_t entry;
	mac mac;
};

struct tags {
	int32_t length; /* bytes: 0, 4, 8, ... */
	uint8_t byte[12];
};

struct scene {
	int32_t is_read;     /* somebody reads the ring; else all that goes up is lost */
	int32_t asks_kernel; /* routes are as the kernel said; what it wasn't asked goes up */
	int32_t entries, elsewheres, hosts, routes, kepts, answereds, refused_askers, heards;
	const struct entry *entry;
	const address *elsewhere; /* of the host, on other interfaces */
	struct host *host;
	const struct route *route;
	const struct kept *kept;
	const struct answered *answered;
	const struct refused_asker *refused_asker;
	struct heard *heard; /* space for as many as a chunk has frames */
	/* what the generator takes from */
	int32_t ports, targets, askers, own_macs, macs, tag_kinds;
	const int32_t *port;
	const address *target, *asker;
	const mac *own_mac, *some_mac;
	const struct tags *tags;
};

#define EVENT_SIZE 52
#define ANSWER_MAX 96

struct verdict {
	int32_t action;
	int32_t outcome, reason; /* NONE: nothing is counted here */
	int32_t limit;           /* of RATE_LIMITED */
	int32_t entry, rule;     /* whose counters */
	int32_t goes_up;
	int32_t answer_length;     /* 0: none */
	uint8_t event[EVENT_SIZE]; /* the time is left zero */
	uint8_t answer[ANSWER_MAX];
};

/* What is to become of a frame that comes in by a port; `scene` learns from it what the program does. */
void decide(struct scene *scene, int port, const uint8_t *frame, int length, struct verdict *verdict);

/* The ICMPv6 checksum of a message (RFC 4443 §2.3) as it is to stand in its field, which counts as zero. */
uint16_t checksum(const uint8_t *source, const uint8_t *destination, const uint8_t *message, int length);

#endif
