// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long the processor waits for memory: a chain of look-ups in an array, each of which has to wait for the one
 * before, as a hash table's chain or a trie's nodes do.
 *
 * -D: COUNT, how many elements of 8 bytes; a power of two.
 */

#define STEPS 1000 /* a run */
#define FILL 256   /* elements that a run fills in, first */

struct state {
	__u32 at;
	__u32 filling;
};

BPF_TABLE("array", int, __u64, elements, COUNT);
BPF_TABLE("array", int, struct state, state_space, 1);

/* A generator with this factor and a summand that is odd comes through all numbers below COUNT (Hull, Dobell). */
static __u64 follower(__u64 i)
{
	return (i * 1664525 + 1013904223) & (COUNT - 1);
}

int chain(struct xdp_md *ctx)
{
	int zero = 0, key;
	struct state *state = state_space.lookup(&zero);
	__u64 *element;

	if (!state)
		return XDP_ABORTED;
	if (state->filling) {
		for (int i = 0; i < FILL; i++) {
			key = (state->at + i) & (COUNT - 1);
			element = elements.lookup(&key);
			if (element)
				*element = follower(key);
		}
		state->at += FILL;
		return XDP_PASS;
	}
	key = state->at & (COUNT - 1);
	for (int i = 0; i < STEPS; i++) {
		element = elements.lookup(&key);
		if (!element)
			return XDP_ABORTED;
		key = *element & (COUNT - 1);
	}
	state->at = key;
	return XDP_PASS;
}
