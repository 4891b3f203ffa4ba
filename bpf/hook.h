// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hook: the two places from which a frame comes, XDP and tc, and how a frame is had at either. Each stage is inlined into
 * the function of either, where the hook is a constant: what is the other's is gone before the kernel sees it.
 *
 * Where the two differ in what a stage does, it says so itself, by `p.hook`:
 *  - ns_find() (parse.h): only a frame at tc may be in pieces.
 *  - advert_write() (advert.h), plain_advertise(): XDP writes an answer in place, tc by advert_store().
 *  - target_routed(): bpf_fib_lookup() compares a length with the route's MTU at tc only.
 *  - hold_begin(), tagged_note(), ns_show(): what tells of tags beside the frame, which tc sees by itself.
 *  - is_taken(): what XDP has held comes to tc as well, while a port goes from the one to the other.
 */
#ifndef NPD6_HOOK_H
#define NPD6_HOOK_H

#include "wire.h"

#define TC_ACT_SHOT 2
#define TC_NEXT (-1) /* TCX_NEXT: the next program of the interface, then the kernel */

enum hook {
	HOOK_XDP,
	HOOK_TC,
};

/* A frame, as its hook hands it over: `ctx` is a struct xdp_md, or a struct __sk_buff. */
struct packet {
	void *ctx;
	enum hook hook;
};

/* A tag that stands beside the frame. */
struct beside {
	bool is_there;
	__be16 proto;
	__be16 tci;
};

#define xdp_of(p) ((struct xdp_md *)(p).ctx)
#define skb_of(p) ((struct __sk_buff *)(p).ctx)

/* Where the frame's bytes begin. */
static __always_inline void *packet_data(struct packet p)
{
	return (void *)(long)(p.hook == HOOK_XDP ? xdp_of(p)->data : skb_of(p)->data);
}

/* Where those end that can be read in place: under tc, that may be before the frame does, until packet_gather(). */
static __always_inline void *packet_end(struct packet p)
{
	return (void *)(long)(p.hook == HOOK_XDP ? xdp_of(p)->data_end : skb_of(p)->data_end);
}

/* How many bytes the frame has. */
static __always_inline __u32 packet_length(struct packet p)
{
	return p.hook == HOOK_XDP ? xdp_of(p)->data_end - xdp_of(p)->data : skb_of(p)->len;
}

/*
 * The interface that it came in by. Through a copy that clang knows nothing of: of several reads it would keep the field's
 * address, and the verifier takes none but the context's own.
 */
static __always_inline __u32 packet_ifindex(struct packet p)
{
	asm volatile("" : "+r"(p.ctx));
	return p.hook == HOOK_XDP ? xdp_of(p)->ingress_ifindex : skb_of(p)->ifindex;
}

/* Copies bytes of the frame, wherever they are. 0, or an error: they aren't there. */
static __always_inline long packet_load(struct packet p, __u32 offset, void *to, __u32 size)
{
	return p.hook == HOOK_XDP ? bpf_xdp_load_bytes(p.ctx, offset, to, size)
				  : bpf_skb_load_bytes(p.ctx, offset, to, size);
}

/* Writes bytes into the frame; for tc only. 0, or an error: it is as it was. */
static __always_inline long packet_store(struct packet p, __u32 offset, const void *from, __u32 size)
{
	/* a checksum that the NIC has made of all bytes stays right */
	return bpf_skb_store_bytes(p.ctx, offset, from, size, BPF_F_RECOMPUTE_CSUM);
}

/* Makes the frame longer or shorter, at its end. 0, or an error: it is as it was. */
static __always_inline long packet_resize(struct packet p, int delta)
{
	return p.hook == HOOK_XDP ? bpf_xdp_adjust_tail(p.ctx, delta)
				  : bpf_skb_change_tail(p.ctx, skb_of(p)->len + delta, 0);
}

/*
 * The outermost tag, where it stands beside the frame: under tc, it does nearly always, since the kernel takes it out if
 * the NIC hasn't. It stays there with the answer. XDP doesn't see such tags.
 */
static __always_inline struct beside packet_beside(struct packet p)
{
	/* each by itself: clang would load two at once, which the verifier refuses */
	volatile struct __sk_buff *skb = skb_of(p);

	if (p.hook == HOOK_XDP || !skb->vlan_present)
		return (struct beside){};
	return (struct beside){ true, skb->vlan_proto, cpu_to_be16(skb->vlan_tci) };
}

/* Under tc, whether the frame goes on behind what can be read in place: it was merged, or came in pieces. */
static __always_inline bool is_scattered(struct packet p, const void *data, const void *data_end)
{
	return p.hook == HOOK_TC && skb_of(p)->len > (__u32)(data_end - data);
}

/* Brings all of a frame together, and whether that could be done. It moves: what was read in place is to be found anew. */
static __always_inline bool packet_gather(struct packet p)
{
	return !bpf_skb_pull_data(p.ctx, skb_of(p)->len);
}

/* What a hook is to do with the frame, in its own words. */
static __always_inline int hook_action(struct packet p, int xdp_action)
{
	if (p.hook == HOOK_XDP)
		return xdp_action;
	if (xdp_action == XDP_TX)
		return bpf_redirect(packet_ifindex(p), 0);
	return xdp_action == XDP_DROP ? TC_ACT_SHOT : TC_NEXT;
}

#endif
