# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that the fuzzer has to find: each changes one place of the XDP program's text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class MutantError(Exception):
    """A mutant can't be made; the message is one line."""


class Mutant(NamedTuple):
    """`old` stands at just one place in bpf/, and `new` says something else there; `about` what is wrong then. `by_tc`:
    only for frames that tc hands over.
    """

    name: str
    about: str
    old: str
    new: str
    by_tc: bool = False


MUTANTS: tuple[Mutant, ...] = (
    # check
    Mutant(
        "hop-limit",
        "A1: a hop limit of 254 passes",
        "ip6h->hop_limit != 255",
        "ip6h->hop_limit < 254",
    ),
    Mutant("code", "A3: codes up to 127 pass", "if (s->ns.icmp6_code)", "if (s->ns.icmp6_code > 127)"),
    Mutant(
        "checksum",
        "A2: a sum that is one off passes",
        "return csum_fold(sum) == 0xffff;",
        "return csum_fold(sum) >= 0xfffe;",
    ),
    Mutant(
        "checksum-zero",
        "A2: a checksum field of 0 doesn't pass",
        "return csum_fold(sum) == 0xffff;",
        "return csum_fold(sum) == 0xffff && s->ns.icmp6_cksum;",
    ),
    Mutant(
        "checksum-long",
        "A2: no checksum of a message longer than 992 bytes is right",
        "done < MESSAGE_MAX + 2 * CSUM_CHUNK;",
        "done < 2 * CSUM_CHUNK;",
    ),
    Mutant(
        "length",
        "A4: a message of 23 bytes passes",
        "length < sizeof(struct nd_msg) ||",
        "length < sizeof(struct nd_msg) - 1 ||",
    ),
    Mutant(
        "multicast-target",
        "A5: multicast targets pass, but for those of the link's scope",
        "if (is_multicast(&s->ns.target))",
        "if (s->ns.target.word[0] == BE16(0xff02))",
    ),
    Mutant(
        "loopback-source",
        "A9: the source ::1 passes",
        "if (is_multicast(&s->source) || is_loopback(&s->source))",
        "if (is_multicast(&s->source))",
    ),
    Mutant(
        "loopback",
        "A9: the source ::1:0:1 and the like doesn't pass",
        "return !(a->qword[0] | a->dword[2]) &&",
        "return !a->qword[0] &&",
    ),
    Mutant(
        "option-length-zero",
        "A6: an option of length 0 passes, as the last one",
        "if (size - 1 >= length - pos)\n\t\t\treturn false;",
        "if (size - 1 >= length - pos)\n\t\t\treturn !size;",
    ),
    Mutant(
        "option-cut-short",
        "A6: less than 8 bytes behind the last option pass",
        "if (size - 1 >= length - pos)\n\t\t\treturn false;",
        "if (size - 1 >= length - pos)\n\t\t\treturn length - pos < 8;",
    ),
    Mutant(
        "solicited-node",
        "A7: the unspecified source may ask 96 bits of a solicited-node address",
        "&& a->byte[12] == 0xff;",
        ";",
    ),
    Mutant(
        "dad-sllao",
        "A8: the unspecified source may have a source link-layer address option of another length",
        "s->has_sllao |= ones_if_zero(other);",
        "s->has_sllao |= ones_if_zero(other | (size ^ 8));",
    ),
    Mutant("atomic-fragment", "A10: atomic fragments pass", "f->fragment = 1;", "f->fragment = opt.frag_off != 0;"),
    Mutant(
        "order",
        "the checksum's fault is named where the code's comes first",
        "if (s->ns.icmp6_code)\n\t\treturn invalid(REASON_CODE); /* A3 */\n\tif (!is_checksum_valid(s, length))\n"
        "\t\treturn invalid(REASON_CHECKSUM); /* A2 */",
        "if (!is_checksum_valid(s, length))\n\t\treturn invalid(REASON_CHECKSUM);\n\tif (s->ns.icmp6_code)\n"
        "\t\treturn invalid(REASON_CODE);",
    ),
    # parse
    Mutant(
        "options-headers",
        "two headers of options are one too many",
        "if (++options > MAX_OPTIONS_HEADERS)",
        "if (++options >= MAX_OPTIONS_HEADERS)",
    ),
    Mutant(
        "hop-by-hop",
        "hop-by-hop options may stand behind others",
        "(nexthdr == NEXTHDR_HOP && i == 0)",
        "nexthdr == NEXTHDR_HOP",
    ),
    Mutant(
        "nonce",
        "RFC 7527: a Nonce is taken to have 8 bytes, whatever it says",
        "size = option[1] * 8;",
        "size = option[0] == 14 && option[1] ? 8 : option[1] * 8;",
    ),
    Mutant("vlan-mask", "a VLAN id has 13 bits", "#define VLAN_VID_MASK 0x0fff", "#define VLAN_VID_MASK 0x1fff"),
    Mutant(
        "priority-tag",
        "the VLAN behind a priority tag counts twice",
        "key->outer = key->inner;\n\t\tkey->inner = 0;",
        "key->outer = key->inner;",
    ),
    Mutant(
        "inner-tag-type",
        "an inner tag of 802.1ad is told as an outer one",
        "f->tag_flags |= EVENT_OUTER_8021AD << i;",
        "f->tag_flags |= EVENT_OUTER_8021AD;",
    ),
    # match
    Mutant(
        "longest-prefix-trie",
        "prefixes longer than 64 bits are passed over, in the trie",
        ".prefixlen = 32 + 128",
        ".prefixlen = 32 + 64",
    ),
    Mutant(
        "longest-prefix-hash",
        "the second longest prefix is tried first, in the hash",
        "exact.length = entry->lengths[i];",
        "exact.length = entry->lengths[i ^ 1];",
    ),
    Mutant(
        "link-local",
        "link-local addresses are fe80::/16 only",
        "(a->word[0] & BE16(0xffc0)) == BE16(0xfe80)",
        "a->word[0] == BE16(0xfe80)",
    ),
    Mutant(
        "next-hop",
        "next hops are answered for",
        "if (rule->decision == DECISION_NEXT_HOP || rule->decision == DECISION_IGNORE)",
        "if (rule->decision == DECISION_IGNORE)",
    ),
    Mutant(
        "own",
        "own addresses are counted as ignored",
        "if (rule->decision == DECISION_OWN)\n\t\treturn pass(OUTCOME_OWN);",
        "if (rule->decision == DECISION_OWN)\n\t\treturn pass(OUTCOME_IGNORED);",
    ),
    Mutant(
        "looped-back",
        "a bridge's port doesn't know its own MAC address when it comes back",
        "if (is_same_ether(f->h_source, entry->mac) || is_same_ether(f->h_source, entry->port_mac))",
        "if (is_same_ether(f->h_source, entry->mac))",
    ),
    Mutant(
        "foreign-unicast",
        "a bridge's port takes frames to its own MAC address for another's",
        "if (!is_multicast_ether(f->h_dest) && !is_same_ether(f->h_dest, entry->mac) &&\n"
        "\t    !is_same_ether(f->h_dest, entry->port_mac))",
        "if (!is_multicast_ether(f->h_dest) && !is_same_ether(f->h_dest, entry->mac))",
    ),
    # answer
    Mutant(
        "override",
        "B3: the Override flag is set where the Router flag isn't",
        ": BE32(ND_NA_FLAG_SOLICITED);",
        ": BE32(ND_NA_FLAG_SOLICITED | 0x20000000);",
    ),
    Mutant(
        "byte-order",
        "B7: the payload length has its bytes the wrong way round",
        "adv->ip6h.payload_len = BE16(sizeof(*adv) - sizeof(adv->ip6h));",
        "adv->ip6h.payload_len = sizeof(*adv) - sizeof(adv->ip6h);",
    ),
    Mutant(
        "tllao-type",
        "B5: the option is a source link-layer address",
        "adv->opt_type = ND_OPT_TARGET_LL_ADDR;",
        "adv->opt_type = ND_OPT_SOURCE_LL_ADDR;",
    ),
    Mutant(
        "tllao-address",
        "B5: a bridge's port advertises its own MAC address",
        "advert_fill(adv, source, entry->mac, rule->flags,",
        "advert_fill(adv, source, entry->port_mac, rule->flags,",
    ),
    Mutant(
        "trailer",
        "B9: the frame's end goes by the message's, so a trailer stays",
        "(int)packet_length(p);",
        "(int)(s->frame.message + s->frame.length);",
    ),
    Mutant(
        "sllao-group",
        "B8: a group's address in the option is answered to",
        "if (!is_multicast_ether(mac) && !is_zero_ether(mac))",
        "if (!is_zero_ether(mac))",
    ),
    Mutant(
        "zero-mac",
        "B8: a MAC address that is zero but for its last byte is taken for none",
        "return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);",
        "return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4]);",
    ),
    Mutant(
        "sllao-last",
        "B8: of several source link-layer address options, the last one counts",
        "sllao | (pos & ones_if_zero(other | (size ^ 8) | sllao));",
        "other | (size ^ 8) ? sllao : pos;",
    ),
    Mutant(
        "interface-source",
        "B6: a global asker is answered from a link-local address",
        "return entry->source_flags & SOURCE_GLOBAL ? &entry->global_address : NULL;",
        "return entry->source_flags & SOURCE_GLOBAL ? &entry->link_local : NULL;",
    ),
    # decide and count
    Mutant("dad", "a probe is never answered", "if (dad && !(rule->flags & RULE_DEFEND))", "if (dad)"),
    Mutant(
        "dad-proxied",
        "a probe goes on to the kernel, whose proxy entry defends the target",
        "return consume(OUTCOME_DAD);",
        "return pass(OUTCOME_DAD);",
    ),
    Mutant(
        "route-back",
        "a route out of where the question came in leads behind us",
        "if (fib.ifindex == entry->l3_ifindex || fib.ifindex == LOOPBACK_IFINDEX)",
        "if (fib.ifindex == LOOPBACK_IFINDEX)",
    ),
    Mutant(
        "via",
        "a route out of any interface will do",
        "return !vias.lookup(&via) == !(rule->flags & RULE_VIA) ? PRESENCE_THERE : PRESENCE_ABSENT;",
        "return PRESENCE_THERE;",
    ),
    Mutant("stale", "Python is told again and again that a host is stale", "present->flags = 0;", ";"),
    Mutant(
        "heard",
        "an asker's new MAC address is no news",
        "return !heard || heard->entry != entry->id || !is_same_ether(heard->mac, s->answer_mac);",
        "return !heard || heard->entry != entry->id;",
    ),
    Mutant(
        "refused-askers",
        "the frame's MAC address is refused, not the one that is answered to",
        "__builtin_memcpy(key.mac, s->answer_mac, ETH_ALEN);\n\treturn refused_askers.lookup(&key);",
        "__builtin_memcpy(key.mac, s->frame.h_source, ETH_ALEN);\n\treturn refused_askers.lookup(&key);",
    ),
    Mutant(
        "refused-entries",
        "an entry that is refused as a whole is refused nothing",
        "if (refused_askers.lookup(&key))\n\t\treturn true;\n",
        "",
    ),
    Mutant(
        "event-tags",
        "the tags of an event are the other way round",
        ".rule = rule->id,\n\t\t.tci = { s->frame.tci[0], s->frame.tci[1] },",
        ".rule = rule->id,\n\t\t.tci = { s->frame.tci[1], s->frame.tci[0] },",
    ),
    Mutant(
        "onward",
        "on a bridge's port, what is undecided doesn't reach the others",
        "(outcome == OUTCOME_PENDING || outcome == OUTCOME_LOST || ",
        "(outcome == OUTCOME_LOST || ",
    ),
    Mutant(
        "rule-counter",
        "a rule counts all under one outcome",
        "rule_counter->outcome[outcome]++;",
        "rule_counter->outcome[OUTCOME_ANSWERED_XDP]++;",
    ),
    Mutant(
        "budget-probe",
        "a probe that is defended takes of the budget of new targets",
        "if (is_unspecified(&s->source) || (is_free && !(entry->flags & ENTRY_REMEMBERS)))",
        "if (is_free && !(entry->flags & ENTRY_REMEMBERS))",
    ),
    Mutant(
        "budget-neighbour",
        "a host that was found to be there takes of the budget of new targets",
        "bool is_free = rule->decision == DECISION_NEIGHBOUR;",
        "bool is_free = false;",
    ),
    Mutant(
        "budget-entry",
        "what was answered on one entry counts as answered on all",
        "known = answered.lookup(&key);",
        "key.scope = 0;\n\tknown = answered.lookup(&key);",
    ),
    Mutant(
        "budget-spent",
        "what is over the budget of new targets is answered all the same",
        "if (paid && !budget_spend(paid, entry->new_target_cost, now.asked))\n\t\t\treturn false;",
        "if (paid && !budget_spend(paid, entry->new_target_cost, now.asked))\n\t\t\treturn true;",
    ),
    Mutant(
        "standby",
        "on standby all is answered",
        "if (entry->flags & ENTRY_STANDBY)\n\t\t\treturn pass(OUTCOME_STANDBY);",
        "",
    ),
    Mutant(
        "standby-monitor",
        "what is only counted has no role",
        "if (entry->flags & ENTRY_STANDBY)\n\t\treturn (struct verdict)",
        "if (entry->flags & ENTRY_STANDBY && entry->datapath != DATAPATH_MONITOR)\n\t\treturn (struct verdict)",
    ),
    Mutant(
        "limit-counter",
        "what is refused for the share of an entry or an asker counts as refused for all",
        "return refuse(LIMIT_CROWDED);",
        "return refuse(LIMIT_PENDING);",
    ),
    # the short way
    Mutant(
        "plain-hop-limit",
        "A1: a hop limit of 254 passes",
        "& PLAIN_HEADER_MASK) != PLAIN_HEADER)",
        "& PLAIN_HEADER_MASK & ~BE64(1)) != (PLAIN_HEADER & ~BE64(1)))",
    ),
    Mutant("plain-code", "A3: any code passes", "if (m->ns.icmp6_code || *", "if (*"),
    Mutant(
        "plain-checksum",
        "A2: any sum passes whose lower byte is right",
        "return !(__u16)~csum_fold(sum);",
        "return !(__u8)~csum_fold(sum);",
    ),
    Mutant(
        "plain-source",
        "A9: a group's source passes",
        "if (is_multicast(source) || !(source->qword[0] | source->dword[2]))",
        "if (!(source->qword[0] | source->dword[2]))",
    ),
    Mutant(
        "plain-target",
        "C2: a link-local target is answered for by a prefix",
        " || is_link_local(target))\n\t\treturn false;\n\tif (is_multicast_ether(mac)",
        ")\n\t\treturn false;\n\tif (is_multicast_ether(mac)",
    ),
    Mutant(
        "plain-option",
        "B8: a group's address in the option is answered to",
        "if (is_multicast_ether(mac) || !(*(const __be16 *)mac | m->option[1]))",
        "if (!(*(const __be16 *)mac | m->option[1]))",
    ),
    Mutant(
        "plain-trailer",
        "B9: a trailer stays behind the answer",
        " || !is_beyond((void *)(m + 1) + 1, data_end)",
        "",
    ),
    Mutant(
        "plain-looped-back",
        "C4: our own question, looped back, is answered",
        "return !mac_difference(eth->h_source, entry->mac) || !mac_difference(eth->h_source, entry->port_mac) ||",
        "return !mac_difference(eth->h_source, entry->port_mac) ||",
    ),
    Mutant(
        "plain-foreign-unicast",
        "C5: a frame to another station is answered",
        "(!is_multicast_ether(eth->h_dest) && mac_difference",
        "(false && mac_difference",
    ),
    Mutant("plain-filter", "the filter is asked for another bit", "* FILTER_FACTOR", "* (FILTER_FACTOR + 2)"),
    Mutant(
        "plain-only",
        "the only prefix of an entry is taken for all addresses",
        "return is_within(target, &entry->only_prefix, &entry->only_mask) ?",
        "return true ?",
    ),
    Mutant("plain-entry", "any entry's are answered", "if (!entry || !(entry->flags & ENTRY_PLAIN))", "if (!entry)"),
    Mutant("plain-place", "tagged frames have the untagged ones' entry", "if (!f->tags) {", "if (true) {"),
    Mutant(
        "plain-held",
        "what may have a hidden tag is answered",
        "if (entry->flags & (ENTRY_GUARDED | ENTRY_SAMPLED) && !f.tags)",
        "if (false)",
    ),
    Mutant(
        "plain-heard",
        "Python isn't told of an asker's new address",
        "if (entry->flags & ENTRY_HEARS && !is_link_local(&f.message->ip6h.saddr))",
        "if (false)",
    ),
    Mutant(
        "plain-interface-source",
        "B6: the source is always the target",
        "if (rule->flags & RULE_SOURCE_INTERFACE)\n\t\treturn false;",
        "",
    ),
    Mutant(
        "plain-ignore",
        "what isn't decided by method neighbour or route is there",
        "if (rule->decision == DECISION_STATIC)\n\t\treturn true;",
        "if (rule->decision <= DECISION_STATIC)\n\t\treturn true;",
    ),
    Mutant(
        "plain-routed",
        "what only the kernel can tell is there",
        "if (presence == PRESENCE_THERE)",
        "if (presence != PRESENCE_ABSENT)",
    ),
    Mutant(
        "plain-route-left",
        "what the short way has found of a route holds for the frames behind, too",
        "s->left_route = 0;",
        "",
    ),
    Mutant(
        "plain-stale",
        "Python isn't told that a host is stale",
        "if (!present || present->flags & PRESENT_STALE)",
        "if (!present)",
    ),
    Mutant(
        "plain-rule-counter",
        "what the short way answers is no rule's",
        "\trule_counter->outcome[OUTCOME_ANSWERED_XDP]++;\n",
        "",
    ),
    Mutant(
        "plain-answer-mac",
        "B8: the answer goes to the first four bytes of the option's address",
        "*(__u32 *)(f->eth->h_dest + 2) = m->option[1];",
        "*(__u16 *)(f->eth->h_dest + 2) = m->option[1];",
    ),
    Mutant(
        "plain-traffic-class",
        "B7: the answer has the question's traffic class",
        "*(__u64 *)&m->ip6h = PLAIN_HEADER;",
        "",
    ),
    Mutant(
        "plain-sum",
        "the answer's checksum has the target in it once",
        "f->source_sum + 2 * f->target_sum +",
        "f->source_sum + f->target_sum +",
    ),
    # what is tc's alone
    Mutant(
        "beside-behind",
        "a tag beside the frame is taken for the inner one",
        "f->tci[1] = f->tci[0];\n\tf->tci[0] = tag.tci;\n\tif",
        "f->tci[1] = tag.tci;\n\tif",
        by_tc=True,
    ),
    Mutant(
        "beside-type",
        "a tag beside the frame is taken for one of 802.1Q",
        "if (tag.proto == BE16(ETH_P_8021AD))",
        "if (false)",
        by_tc=True,
    ),
    Mutant(
        "beside-inner-type",
        "the type of a tag in the frame is told of the one beside it",
        "f->tag_flags ^= EVENT_OUTER_8021AD | EVENT_INNER_8021AD;",
        "f->tag_flags ^= 0;",
        by_tc=True,
    ),
    Mutant(
        "beside-third",
        "a third tag is no reason to pass a frame, if one of them stands beside it",
        "if ((f->tag_flags & EVENT_TAG_COUNT) == MAX_TAGS)",
        "if (false)",
        by_tc=True,
    ),
    Mutant(
        "tc-macs",
        "the answer has the MAC addresses of the question",
        "return !packet_store(p, l3, &whole.adv, sizeof(whole.adv)) &&\n"
        "\t       !packet_store(p, 0, whole.macs, sizeof(whole.macs));",
        "return !packet_store(p, l3, &whole.adv, sizeof(whole.adv));",
        by_tc=True,
    ),
    Mutant(
        "plain-beside",
        "a tag beside the frame is taken for the inner one, by the short way",
        "f->tci[1] = f->tci[0];\n\tf->tci[0] = tag.tci;\n\tf->tags++;",
        "f->tci[1] = tag.tci;\n\tf->tags++;",
        by_tc=True,
    ),
    Mutant(
        "plain-third",
        "a third tag is no reason to leave the short way",
        "if (f->tags == MAX_TAGS)",
        "if (false)",
        by_tc=True,
    ),
    Mutant(
        "tc-goes-on",
        "what is consumed goes on to the next program",
        "return xdp_action == XDP_DROP ? TC_ACT_SHOT : TC_NEXT;",
        "return TC_NEXT;",
        by_tc=True,
    ),
)

SHORT_WAY = Mutant(
    "short-way",
    "no fault: all frames go the long way",
    "int action = ns_answer_plain(p);",
    "int action = NOT_PLAIN;",
)
"""What has to be changed for the two ways to be compared."""


def apply(mutant: Mutant, directory: Path) -> None:
    """Change the sources in a directory. Raises MutantError unless its place is there just once."""
    places = [
        (path, path.read_text().count(mutant.old)) for path in sorted((*directory.glob("*.c"), *directory.glob("*.h")))
    ]
    found = sum(count for _, count in places)
    if found != 1:
        text = " ".join(mutant.old.split())
        raise MutantError(
            f"mutant {mutant.name}: its text stands {found} times in bpf/, not once; mend tests/fuzz/mutants.py: {text}"
        )
    path = next(path for path, count in places if count)
    path.write_text(path.read_text().replace(mutant.old, mutant.new))


def named(names: Iterable[str]) -> list[Mutant]:
    """Those of the names, or all."""
    wanted = list(names)
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in wanted:
        if name not in known:
            raise MutantError(f"there is no fault {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted] or list(MUTANTS)
