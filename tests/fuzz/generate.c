/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Solicitations of every shape. Most are valid, so that what comes behind the checks is reached; of the others most have
 * one fault, at a place that some rule speaks of, so that no other check hides it; and some are just torn.
 */
#include <string.h>

#include "generate.h"

/* --- chance ----------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014): any state will do, and each gives a stream of its own. */
static uint64_t draw(struct generator *g)
{
	uint64_t z = (g->state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static int below(struct generator *g, int n)
{
	return (draw(g) >> 32) * n >> 32;
}

/* Once in so many times. */
static int once_in(struct generator *g, int n)
{
	return below(g, n) == 0;
}

static int percent(struct generator *g, int n)
{
	return below(g, 100) < n;
}

static void scatter(struct generator *g, uint8_t *p, int length)
{
	for (int i = 0; i < length; i++)
		p[i] = draw(g) >> 56;
}

/* --- parts ------------------------------------------------------------------------------------------ */

static const uint8_t all_nodes[16] = { 0xff, 0x02, [15] = 1 };

static void solicited_node(const uint8_t *target, uint8_t *destination)
{
	static const uint8_t prefix[13] = { 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff };

	memcpy(destination, prefix, 13);
	memcpy(destination + 13, target + 13, 3);
}

/* One of those that the configuration speaks of, one near it, or any. */
static void pick_address(struct generator *g, const address *pool, int count, uint8_t *a)
{
	int dice = below(g, 100);

	memcpy(a, pool[below(g, count)].byte, 16);
	if (dice < 8) {
		a[below(g, 16)] ^= 1 << below(g, 8);
	} else if (dice < 16) {
		static const int kept[] = { 4, 6, 7, 8, 8, 12, 14, 15 };
		int from = kept[below(g, 8)];

		scatter(g, a + from, 16 - from);
	} else if (dice < 18) {
		scatter(g, a, 16);
	}
}

static void pick_source(struct generator *g, const struct scene *scene, uint8_t *a)
{
	int dice = below(g, 100);

	memset(a, 0, 16);
	if (dice < 12)
		return; /* :: */
	if (dice < 13) {
		a[15] = 1; /* ::1 */
	} else if (dice < 14) {
		a[0] = 0xff;
		scatter(g, a + 1, 15);
	} else if (dice < 15) {
		a[15] = below(g, 2);
		a[below(g, 16)] ^= 1 << below(g, 8); /* nearly ::, or ::1 */
	} else {
		pick_address(g, scene->asker, scene->askers, a);
	}
}

static void pick_destination(struct generator *g, const uint8_t *source, const uint8_t *target, uint8_t *a)
{
	int dice = below(g, 100);

	solicited_node(target, a);
	if (dice < 70)
		return;
	if (dice < 80)
		memcpy(a, target, 16);
	else if (dice < 84)
		memcpy(a, all_nodes, 16);
	else if (dice < 86)
		memcpy(a, source, 16);
	else if (dice < 88)
		scatter(g, a, 16);
	else if (dice < 92)
		a[below(g, 13)] ^= 1 << below(g, 8); /* nearly a solicited-node address */
	else if (dice < 96)
		scatter(g, a + 13, 3); /* another's; else as for most */
}

static void pick_mac(struct generator *g, const mac *pool, int count, uint8_t *m)
{
	memcpy(m, pool[below(g, count)].byte, 6);
}

/* Tags of the configuration's VLANs, with all priorities; now and then any, or one too many. */
static int put_tags(struct generator *g, const struct scene *scene, uint8_t *p)
{
	const struct tags *tags = &scene->tags[below(g, scene->tag_kinds)];
	int length = tags->length;

	memcpy(p, tags->byte, 12);
	if (length > 0 && percent(g, 30))
		p[2] ^= (draw(g) >> 56) & 0xf0; /* the bits beside the VLAN's id */
	if (length > 4 && percent(g, 30))
		p[6] ^= (draw(g) >> 56) & 0xf0;
	if (length > 0 && percent(g, 6))
		p[2 + below(g, 2)] ^= 1 << below(g, 8);
	if (length > 4 && percent(g, 6))
		p[6 + below(g, 2)] ^= 1 << below(g, 8);
	if (length > 0 && once_in(g, 100)) { /* a type that is no tag's */
		static const uint8_t types[][2] = { { 0x91, 0 }, { 0x81, 1 }, { 0x88, 0xa7 }, { 0x88, 0xe7 } };

		memcpy(p, types[below(g, 4)], 2);
	}
	return length;
}

/* One option at `p`, where there is space for 3,000 bytes. */
static int put_option(struct generator *g, const struct scene *scene, const uint8_t *from, uint8_t *p)
{
	static const int units[] = { 1, 1, 1, 1, 2, 2, 3, 30 };
	static const int types[] = { 0, 2, 2, 3, 5, 14, 14, 14, 24, 253 };
	int dice = below(g, 100), length;

	if (dice < 50) { /* source link-layer address; now and then of another length */
		length = percent(g, 85) ? 1 : 2;
		p[0] = 1;
		p[1] = length;
		scatter(g, p + 2, 8 * length - 2);
		if (percent(g, 60))
			memcpy(p + 2, from, 6);
		else
			pick_mac(g, scene->some_mac, scene->macs, p + 2);
		return 8 * length;
	}
	length = units[below(g, 8)];
	if (once_in(g, 60))
		length = 1 + below(g, 255);
	p[0] = percent(g, 90) ? types[below(g, 10)] : below(g, 256);
	p[1] = length;
	scatter(g, p + 2, 8 * length - 2);
	return 8 * length;
}

/* What Linux sends for the most part: its MAC address, for a probe a Nonce (RFC 7527) or nothing. */
static int put_options(struct generator *g, const struct scene *scene, const uint8_t *from, int is_probe, uint8_t *p)
{
	int dice = below(g, 100), length = 0;

	if (dice < 45 && !is_probe) {
		p[0] = p[1] = 1;
		memcpy(p + 2, from, 6);
		return 8;
	}
	if (dice < 60)
		return 0;
	for (int i = 1 + below(g, 5); i > 0 && length < 900; i--) {
		int added = put_option(g, scene, from, p + length);

		if (is_probe && p[length] == 1 && percent(g, 85))
			p[length] = 14;
		length += added;
	}
	if (percent(g, 8)) { /* what ends elsewhere than it says */
		static const uint8_t wrong[][2] = { { 1, 0 }, { 14, 0 }, { 1, 2 }, { 1, 255 }, { 253, 3 } };
		int left = percent(g, 50) ? 8 : 1 + below(g, 8);

		scatter(g, p + length, 8);
		memcpy(p + length, wrong[below(g, 5)], 2);
		length += left;
	}
	return length;
}

/* Extension headers from `p` on; `first` is where the number of the first one goes. Gives where the last one's is. */
static uint8_t *put_chain(struct generator *g, uint8_t *first, uint8_t *p, int *length)
{
	static const int counts[] = { 1, 1, 1, 1, 1, 2, 2, 2, 3, 4 };
	static const int odd[] = { 0, 43, 50, 51, 59, 6, 135, 255 };
	static const uint16_t offsets[] = { 0, 0, 0, 1, 6, 8, 0x100, 0xfff8 };
	int count = counts[below(g, 10)];

	*length = 0;
	for (int i = 0; i < count; i++) {
		int dice = below(g, 100), size = 8;

		scatter(g, p, 8);
		if (dice < 12) {
			uint16_t offset = offsets[below(g, 8)];

			*first = 44;
			p[2] = offset / 256;
			p[3] = offset % 256;
		} else {
			*first = i == 0 && percent(g, 50) ? 0 : 60;
			if (dice < 17)
				*first = odd[below(g, 8)];
			p[1] = percent(g, 75) ? 0 : below(g, 4);
			if (once_in(g, 80))
				p[1] = below(g, 256);
			size = 8 + 8 * p[1];
			if (size > 300)
				size = 300; /* it says more than there is */
			if (size > 8)
				scatter(g, p + 8, size - 8);
		}
		first = p;
		p += size;
		*length += size;
	}
	return first;
}

/* --- a whole frame ----------------------------------------------------------------------------------- */

/* Makes the checksum one that is easily taken for another: 0, or its other spelling, 0xffff. */
static void seal_with_zero(uint8_t *source, uint8_t *destination, uint8_t *message, int length, int other)
{
	uint32_t sum;

	message[6] = message[7] = 0;
	/* the complement of the sum: what is missing to all ones */
	sum = checksum(source, destination, message, length);
	message[6] = sum / 256;
	message[7] = sum % 256;
	message[2] = message[3] = other ? 0xff : 0;
}

static void tear(struct generator *g, uint8_t *frame, int *length)
{
	int dice = below(g, 10);

	if (dice < 3) {
		*length = FRAME_MIN + below(g, *length - FRAME_MIN + 1);
		return;
	}
	for (int i = 1 + below(g, 3); i > 0; i--) {
		int at = below(g, *length);

		if (percent(g, 50))
			frame[at] ^= 1 << below(g, 8);
		else
			frame[at] = percent(g, 50) ? below(g, 256) : percent(g, 50) * 0xff;
	}
}

int generate(struct generator *g, const struct scene *scene, uint8_t *frame, int32_t *port)
{
	uint8_t target[16], source[16], destination[16], *ip, *message, *next;
	int at, length, chain = 0, payload, tail = 0;
	int fault = percent(g, 30) ? below(g, 20) : -1;

	*port = scene->port[below(g, scene->ports)];
	pick_address(g, scene->target, scene->targets, target);
	pick_source(g, scene, source);
	pick_destination(g, source, target, destination);

	if (destination[0] == 0xff) { /* RFC 2464 §7; RFC 6085 lets it come to one station, too */
		memcpy(frame, "\x33\x33", 2);
		memcpy(frame + 2, destination + 12, 4);
		if (percent(g, 5))
			pick_mac(g, scene->own_mac, scene->own_macs, frame);
	} else {
		pick_mac(g, scene->own_mac, scene->own_macs, frame);
	}
	if (percent(g, 4))
		pick_mac(g, scene->some_mac, scene->macs, frame);
	pick_mac(g, scene->some_mac, scene->macs, frame + 6);
	if (percent(g, 2))
		pick_mac(g, scene->own_mac, scene->own_macs, frame + 6);
	if (percent(g, 2))
		frame[below(g, 12)] ^= 1 << below(g, 8);
	at = 12 + put_tags(g, scene, frame + 12);
	frame[at++] = 0x86;
	frame[at++] = 0xdd;

	ip = frame + at;
	memset(ip, 0, 8);
	ip[0] = 0x60;
	if (percent(g, 10)) { /* traffic class and flow label */
		scatter(g, ip + 1, 3);
		ip[0] |= (draw(g) >> 60);
	}
	ip[7] = 255;
	memcpy(ip + 8, source, 16);
	memcpy(ip + 24, destination, 16);

	next = ip + 6;
	if (percent(g, 12))
		next = put_chain(g, next, ip + 40, &chain);
	*next = 58;

	message = ip + 40 + chain;
	memset(message, 0, 8);
	message[0] = 135;
	if (percent(g, 15))
		scatter(g, message + 4, 4); /* reserved: "MUST be ignored by the receiver" */
	memcpy(message + 8, target, 16);
	length = 24 + put_options(g, scene, frame + 6, memcmp(source, (uint8_t[16]){ 0 }, 16) == 0, message + 24);

	/* what is to be covered by a right checksum all the same */
	if (fault == 0)
		message[1] = 1 << below(g, 8);
	else if (fault == 1)
		length = below(g, 34);
	else if (fault == 2)
		length -= below(g, 9);
	else if (fault == 3) {
		message[8] = 0xff;
		scatter(g, message + 9, 15);
	} else if (fault == 4)
		memset(message + 8, 0, 15);
	if (length < 4) {
		int real = length;

		length = 4;
		payload = real;
	} else {
		payload = length;
	}
	if (once_in(g, 25) && length >= 24) {
		seal_with_zero(source, destination, message, length, percent(g, 50));
	} else {
		uint16_t sum = checksum(source, destination, message, length);

		message[2] = sum / 256;
		message[3] = sum % 256;
	}

	/* and what isn't */
	if (percent(g, 15)) {
		tail = 1 + below(g, 48);
		scatter(g, message + length, tail);
	}
	payload += chain;
	if (fault == 5)
		ip[7] = percent(g, 40) ? 254 : below(g, 256);
	else if (fault == 6)
		scatter(g, message + 2, 2);
	else if (fault == 7)
		message[2 + below(g, 2)] += percent(g, 50) ? 1 : -1;
	else if (fault == 8) { /* the bytes of the field the wrong way round */
		uint8_t first = message[2];

		message[2] = message[3];
		message[3] = first;
	} else if (fault == 9)
		payload += below(g, 17) - 8;
	else if (fault == 10) {
		static const int lengths[] = { 0, 1, 7, 8, 23, 24, 31, 32, 33, 40, 0x1800, 65535 };

		payload = lengths[below(g, 12)];
	} else if (fault == 11)
		message[0] = percent(g, 60) ? 133 + below(g, 5) : below(g, 256);
	else if (fault == 12)
		ip[0] ^= 0x10 << below(g, 4);
	else if (fault == 13)
		frame[at - 1 - below(g, 2)] ^= 1 << below(g, 8);
	else if (fault == 14)
		*next = below(g, 256);
	ip[4] = payload / 256;
	ip[5] = payload % 256;
	length = message - frame + length + tail;
	if (fault == 15)
		length -= below(g, 40);
	if (fault >= 16)
		tear(g, frame, &length);
	if (length > FRAME_MAX)
		length = FRAME_MAX;
	return length < FRAME_MIN ? FRAME_MIN : length;
}
