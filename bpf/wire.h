// SPDX-License-Identifier: GPL-2.0-or-later
/* wire: headers, constants of the RFCs, and predicates of addresses. */
#ifndef NPD6_WIRE_H
#define NPD6_WIRE_H

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* What is read before it in the text is read before it, and what is read behind it isn't read before. */
#define read_barrier() asm volatile("" ::: "memory")

/* Fields of several bytes are compared as they stand on the wire, so constants are in network order. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BE16(x) ((__be16)__builtin_bswap16(x))
#define BE32(x) ((__be32)__builtin_bswap32(x))
#define BE64(x) ((__be64)__builtin_bswap64(x))
#elif __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BE16(x) ((__be16)(x))
#define BE32(x) ((__be32)(x))
#define BE64(x) ((__be64)(x))
#else
#error "neither little-endian nor big-endian: write BE16(), BE32() and BE64() for it"
#endif
#define be16_to_cpu(x) ((__u16)BE16(x))
#define cpu_to_be16(x) BE16(x)

#define ETH_ALEN 6
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_IPV6 0x86dd
#define VLAN_VID_MASK 0x0fff

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

#define CHECKSUM_AT 2 /* in an ICMPv6 message */
#define TARGET_AT 8
#define NEXTHDR_AT 6 /* in an IPv6 header */
#define SOURCE_AT 8

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
	__be32 flow; /* version, traffic class, flow label */
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	struct in6_addr saddr;
	struct in6_addr daddr;
};

struct ipv6_opt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;     /* in units of 8 bytes, not counting the first 8; a fragment header's is reserved */
	__be16 frag_off; /* of a fragment header only */
	__be32 identification;
};

struct nd_msg {
	__u8 icmp6_type;
	__u8 icmp6_code;
	__sum16 icmp6_cksum;
	__be32 flags; /* NS: reserved */
	struct in6_addr target;
};

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

/* F1: ff02::1:ff00:0/104 */
static __always_inline bool is_solicited_node(const struct in6_addr *a)
{
	return a->dword[0] == BE32(0xff020000) && !a->dword[1] && a->dword[2] == BE32(1) && a->byte[12] == 0xff;
}

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#endif
