# SPDX-License-Identifier: GPL-2.0-or-later
"""What `init` decides about machines, and that all it writes is read by our own reader."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.tools.init.decide import decide
from npd6_xdp.tools.init.plan import Entry, Plan, Rule
from npd6_xdp.tools.init.settings import shown, ways_back
from npd6_xdp.tools.init.text import by_hand, document, proof
from tests.tools.init.machines import Sketch, vps

Rules = list[tuple[str, str, str, tuple[str, ...], bool]]


def rules(sketch: Sketch) -> Rules:
    """What is written for a machine, read: (interface, prefix, method, via, host_routes) of each rule."""
    plan = decide(sketch.machine)
    assert not plan.problem, plan.problem
    text = document(plan)
    config = parse(text, "it")
    print(text)
    return [
        (interface.name, rule.prefix, rule.method, rule.via, rule.host_routes)
        for interface in config.interfaces
        for rule in interface.rules
    ]


def said(sketch: Sketch) -> str:
    plan = decide(sketch.machine)
    return "\n".join(by_hand(plan.steps))


def to_set(sketch: Sketch) -> list[str]:
    return [f"{shown(each.key)}={each.value}" for each in decide(sketch.machine).settings]


ON_LINK = ("eth0", "2001:db8:1::/64", "neighbour", ("br0",), True)
BACK = ("br0", "2001:db8:1::/64", "neighbour", ("eth0",), False)


def test_a_bridge_without_a_prefix_has_the_uplinks_on_link_64() -> None:
    assert rules(vps().link("br0", "bridge")) == [ON_LINK, BACK]


def test_what_has_hosts_of_the_prefix_goes_before_what_is_only_there() -> None:
    seen = vps().link("br0", "bridge").link("virbr0", "bridge").neighbour("2001:db8:1::10", "br0")
    assert rules(seen) == [ON_LINK, BACK]
    assert decide(seen.machine).example == "2001:db8:1::10"


def test_a_bridge_with_nobody_on_it_is_passed_over_while_another_is_up_and_taken_where_it_is_alone() -> None:
    both = vps().link("br0", "bridge").link("docker0", "bridge", up=False)
    assert rules(both) == [ON_LINK, BACK]
    assert "Passed over: docker0 (a bridge of Docker)" in document(decide(both.machine))
    assert rules(vps().link("docker0", "bridge", up=False))[0][3] == ("docker0",)


def test_hardware_without_a_prefix_counts_only_where_nothing_is_made_for_hosts() -> None:
    assert rules(vps().link("eth1"))[0][3] == ("eth1",)
    both = vps().link("eth1").link("br0", "bridge")
    assert rules(both) == [ON_LINK, BACK]
    assert "eth1 (an interface of its own): it may lead anywhere" in document(decide(both.machine))


def test_ports_of_bridges_and_what_shares_the_upstreams_link_are_not_behind() -> None:
    sketch = vps().link("br0", "bridge").link("veth1", "veth", master="br0").link("mac0", "macvlan", parent="eth0")
    assert rules(sketch) == [ON_LINK, BACK]


def test_where_ipv6_is_off_nobody_is_looked_for() -> None:
    off = vps().link("br0", "bridge").link("docker0", "bridge").sysctl("conf/docker0/disable_ipv6", "1")
    assert rules(off) == [ON_LINK, BACK]
    assert "IPv6 is off there (disable_ipv6)" in document(decide(off.machine))


def test_several_bridges_find_each_others_hosts_too() -> None:
    found = rules(vps().link("br0", "bridge").link("br1", "bridge"))
    assert found == [
        ("eth0", "2001:db8:1::/64", "neighbour", ("br0", "br1"), True),
        ("br0", "2001:db8:1::/64", "neighbour", ("eth0", "br1"), False),
        ("br1", "2001:db8:1::/64", "neighbour", ("eth0", "br0"), False),
    ]


def test_parts_of_the_prefix_that_are_routed_behind_take_method_route() -> None:
    docker = (
        vps()
        .link("br-0a1b2c3d4e5f", "bridge")
        .address("2001:db8:1:0:a::1/80", "br-0a1b2c3d4e5f")
        .neighbour("2001:db8:1:0:a::2", "br-0a1b2c3d4e5f")
        .link("wg0", "wireguard")
        .route("2001:db8:1:0:b::2/128", "wg0")
    )
    assert rules(docker) == [("eth0", "2001:db8:1::/64", "route", ("br-0a1b2c3d4e5f", "wg0"), False)]
    assert said(docker) == "", "Docker gives its containers addresses and routes"


def test_parts_and_hosts_of_the_rest_have_a_rule_each() -> None:
    mixed = (
        vps()
        .link("br0", "bridge")
        .neighbour("2001:db8:1::10", "br0")
        .link("br1", "bridge")
        .address("2001:db8:1:0:a::1/80", "br1")
        .link("wg0", "wireguard")
        .route("2001:db8:1:0:b::2/128", "wg0")
    )
    assert rules(mixed) == [
        ON_LINK,
        ("eth0", "2001:db8:1:0:a::/80", "route", ("br1",), False),
        ("eth0", "2001:db8:1:0:b::2", "route", ("wg0",), False),
        BACK,
    ]


def test_a_prefix_that_was_given_for_a_time_is_followed() -> None:
    given_ = (
        Sketch()
        .link("eth0")
        .address("2001:db8:1::2/64", "eth0", "ra")
        .route("default", "eth0", "fe80::1", "ra")
        .link("br0", "bridge")
    )
    assert rules(given_) == [
        ("eth0", "interface:eth0", "neighbour", ("br0",), True),
        ("br0", "interface:eth0", "neighbour", ("eth0",), False),
    ]
    two = given_.address("2001:db8:2::2/64", "eth0", "ra").address("2001:db8:3::2/64", "eth0")
    assert [rule[1] for rule in rules(two)] == ["2001:db8:3::/64", "interface:eth0"] * 2


def test_the_same_64_on_both_sides_is_one_route_too_many() -> None:
    both = vps().link("lan0").address("2001:db8:1::3/64", "lan0")
    assert [rule[3] for rule in rules(both)] == [("lan0",), ("eth0",)]
    assert "ip -6 address change 2001:db8:1::3/64 dev lan0 noprefixroute" in said(both)
    bare = vps().link("lan0").address("2001:db8:1::3/64", "lan0", "bare")
    assert "noprefixroute" not in said(bare)
    assert "noprefixroute" not in said(vps().link("lan0").address("2001:db8:1::3/128", "lan0"))
    assert "ip -6 route del 2001:db8:1::/64 dev lan0" in said(bare.route("2001:db8:1::/64", "lan0"))
    incus = vps().link("incusbr0", "bridge").address("2001:db8:1::3/64", "incusbr0")
    assert "make that of eth0 a /128" in said(incus)
    assert "ip -6 address change" not in said(incus), "Incus would change it back"


def test_a_tunnel_with_the_uplinks_prefix_is_no_via_and_is_said() -> None:
    tunnel = vps().link("wg0", "wireguard").address("2001:db8:1::3/64", "wg0").link("br0", "bridge")
    assert rules(tunnel) == [ON_LINK, BACK]
    assert "wg0 is a tunnel, and has all of 2001:db8:1::/64" in said(tunnel)


ROUTED = ("wan0", "2001:db8:1::/64", "route", ("lan0",), False)


def home() -> Sketch:
    return (
        Sketch()
        .link("wan0")
        .address("2001:db8::2/64", "wan0")
        .route("default", "wan0", "2001:db8::1")
        .link("lan0")
        .address("fe80::7/64", "lan0")
    )


def test_a_prefix_behind_is_routed_whatever_leads_to_it() -> None:
    own = home().address("2001:db8:1::1/64", "lan0")
    # wan0's own /64 has nobody behind it, as lan0 has a prefix
    assert rules(own) == [ROUTED]
    assert '# prefix = "2001:db8::/64"' in document(decide(own.machine))
    behind = own.route("2001:db8:5::/48", "lan0", "fe80::9")
    assert rules(behind) == [ROUTED, ("wan0", "2001:db8:5::/48", "route", ("lan0",), False)]
    assert rules(own.link("wg0", "wireguard").address("2001:db8:6::1/64", "wg0"))[-1][1:4] == (
        "2001:db8:6::/64",
        "route",
        ("wg0",),
    )


def test_what_the_daemon_has_left_and_what_is_local_is_no_prefix() -> None:
    sketch = home().address("2001:db8:1::1/64", "lan0").route("2001:db8:7::9/128", "lan0", proto="136")
    sketch = sketch.address("fd00::1/64", "lan0").route("ff00::/8", "lan0").address("2001:db8:9::1/128", "lan0")
    assert rules(sketch) == [ROUTED]


def test_a_delegated_prefix_is_followed_on_the_interface_that_has_a_part() -> None:
    delegated = home().route("2001:db8:100::/56", proto="dhcp", kind="unreachable")
    part = delegated.address("2001:db8:100:1::1/64", "lan0", "dynamic")
    assert rules(part) == [("wan0", "interface:lan0", "route", ("lan0",), False)]
    assert "a part of 2001:db8:100::/56" in re.sub(r"\n# ", " ", document(decide(part.machine)))


def test_a_delegated_prefix_of_which_no_interface_has_a_part_is_said() -> None:
    bare = Sketch().link("wan0").route("default", "wan0", "fe80::1", "ra").address("2001:db8::2/128", "wan0")
    bare = bare.route("2001:db8:100::/56", proto="dhcp", kind="unreachable")
    assert decide(bare.machine).problem.startswith("2001:db8:100::/56 is delegated to this machine, and no interface")


def test_each_of_two_uplinks_has_its_own_prefix_and_all_that_is_routed_behind() -> None:
    two = (
        home()
        .link("wan1")
        .address("2001:db8:b::2/64", "wan1")
        .route("default", "wan1", "2001:db8:b::1", metric=2048)
        .address("2001:db8:1::1/64", "lan0")
        .link("br0", "bridge")
        .neighbour("2001:db8:b::9", "br0")
    )
    assert [rule[:4] for rule in rules(two)] == [
        ("wan0", "2001:db8:1::/64", "route", ("lan0",)),
        ("wan1", "2001:db8:b::/64", "neighbour", ("br0",)),
        ("wan1", "2001:db8:1::/64", "route", ("lan0",)),
        ("br0", "2001:db8:b::/64", "neighbour", ("wan1",)),
    ]
    assert "wan0 and wan1 are uplinks." in said(two)
    text = document(decide(two.machine))
    assert "There are 2 uplinks: wan0, wan1." in text
    assert '# prefix = "2001:db8::/64"\n# method = "neighbour"\n# via = ["br0"]\n' in text, (
        "a guess beside what is known"
    )


def test_an_uplink_that_is_a_bridge_is_named_by_its_port() -> None:
    proxmox = (
        Sketch()
        .link("vmbr0", "bridge")
        .link("eno1", master="vmbr0")
        .link("tap100i0", "tun", master="vmbr0")
        .address("2001:db8:1::2/128", "vmbr0")
        .route("default", "vmbr0", "2001:db8:1::ff")
        .link("vmbr1", "bridge")
        .address("2001:db8:1::1/64", "vmbr1")
    )
    assert rules(proxmox) == [("eno1", "2001:db8:1::/64", "route", ("vmbr1",), False)]


def test_two_uplinks_by_one_port_are_one_entry() -> None:
    """Or the file would be refused."""
    sketch = Sketch().link("br0", "bridge").link("eth0", master="br0").link("br1", "bridge")
    for name, prefix in (("br0", "2001:db8:1::2/64"), ("eth0", "2001:db8:2::2/64")):
        sketch.address(prefix, name).route("default", name, "fe80::1")
    assert [rule[:2] for rule in rules(sketch)] == [
        ("eth0", "2001:db8:1::/64"),
        ("eth0", "2001:db8:2::/64"),
        ("br1", "2001:db8:1::/64"),
        ("br1", "2001:db8:2::/64"),
    ]


def test_what_is_in_another_vrf_is_left_out() -> None:
    sketch = (
        Sketch()
        .link("blue", "vrf", table=100)
        .link("wan0", master="blue")
        .address("2001:db8::2/64", "wan0")
        .route("default", "wan0", "2001:db8::1")
        .link("lan0", master="blue")
        .address("2001:db8:1::1/64", "lan0")
        .link("lan1")
        .address("2001:db8:2::1/64", "lan1")
    )
    assert rules(sketch) == [ROUTED]
    assert "Left out: lan1, which is in another VRF than the uplink." in document(decide(sketch.machine))


def test_an_on_link_prefix_of_which_the_uplink_has_no_address_cannot_be_followed() -> None:
    dhcp = Sketch().link("eth0").address("2001:db8:1::9/128", "eth0", "dynamic").link("br0", "bridge")
    dhcp = dhcp.route("default", "eth0", "fe80::1", "ra").route("2001:db8:1::/64", "eth0", proto="ra")
    assert rules(dhcp) == [ON_LINK, BACK]
    assert "where another one comes, change it here" in re.sub(r"\n# ", " ", document(decide(dhcp.machine)))


def test_a_route_for_all_global_addresses_does_as_a_default_route() -> None:
    sketch = Sketch().link("eth0").address("2001:db8:1::2/64", "eth0").route("2000::/3", "eth0", "fe80::1")
    assert rules(sketch.link("br0", "bridge")) == [ON_LINK, BACK]


def test_of_very_many_routed_prefixes_it_is_said_how_many_have_no_rule() -> None:
    many = home()
    for number in range(40):
        many.route(f"2001:db8:{0x100 + number:x}::/48", "lan0", "fe80::9")
    assert len(rules(many)) == 16
    assert "24 more prefixes routed behind" in document(decide(many.machine))


NOTHING = (
    ("no default route", Sketch().link("eth0").address("2001:db8:1::2/64", "eth0"), "no IPv6 default route here"),
    ("a tunnel", Sketch().link("ppp0", "ppp").route("default", "ppp0"), "leads out of ppp0, which has no Ethernet"),
    ("an ipvlan device", Sketch().link("ipv0", "ipvlan").route("default", "ipv0", "fe80::1"), "use a macvlan device"),
)


@pytest.mark.parametrize(
    ("sketch", "why"), [(sketch, why) for _, sketch, why in NOTHING], ids=[row[0] for row in NOTHING]
)
def test_where_no_uplink_can_be_told_a_line_says_why(sketch: Sketch, why: str) -> None:
    with pytest.raises(MachineError, match=why) as raised:
        decide(sketch.machine)
    assert "\n" not in str(raised.value)


PROBLEMS = (
    ("nothing behind", vps(), "nothing is behind eth0 that could have hosts of 2001:db8:1::/64"),
    ("no prefix", Sketch().link("eth0").route("default", "eth0", "fe80::1"), "eth0 has no global address"),
    (
        "one address",
        Sketch()
        .link("eth0")
        .address("2001:db8:1::2/128", "eth0")
        .route("default", "eth0", "fe80::1")
        .link("br0", "bridge"),
        "eth0 has 2001:db8:1::2/128 alone",
    ),
    (
        "local addresses alone",
        Sketch().link("eth0").address("fd00::2/64", "eth0").route("default", "eth0", "fd00::1").link("br0", "bridge"),
        "eth0 has no global address",
    ),
)


@pytest.mark.parametrize(("sketch", "why"), [(s, why) for _, s, why in PROBLEMS], ids=[row[0] for row in PROBLEMS])
def test_where_there_is_nothing_to_answer_for_a_line_says_so_and_all_is_commented_out(sketch: Sketch, why: str) -> None:
    plan = decide(sketch.machine)
    assert why in plan.problem
    assert "\n" not in plan.problem
    assert all(not line or line.startswith("#") for line in document(plan).splitlines())


def test_a_default_route_that_forwarding_has_taken_away_is_told_by_its_traces() -> None:
    lost = (
        Sketch()
        .link("eth0")
        .address("2001:db8:1::2/64", "eth0", "ra")
        .hears("eth0")
        .link("br0", "bridge")
        .sysctl("conf/all/forwarding", "1")
        .sysctl("conf/eth0/forwarding", "1")
        .sysctl("conf/br0/forwarding", "1")
    )
    assert to_set(lost) == ["net/ipv6/conf/eth0/accept_ra=2"]
    assert "rdisc6 -1 eth0" in said(lost)
    assert "apt-get" not in said(lost)
    lost.can_ask_routers = False
    (step,) = [step for step in decide(lost.machine).steps if "next router advertisement" in step.words]
    assert step.commands == ("apt-get install ndisc6", "rdisc6 -1 eth0"), "what asks is installed first"
    assert rules(lost)[0][0] == "eth0"


def test_accept_ra_is_set_before_forwarding_and_only_where_the_kernel_takes_advertisements_in() -> None:
    advertised = Sketch().link("eth0").address("2001:db8:1::2/64", "eth0", "ra").link("br0", "bridge")
    advertised = advertised.route("default", "eth0", "fe80::1", "ra")
    forwarding = "net.ipv6.conf.all.forwarding=1"
    assert to_set(advertised) == ["net/ipv6/conf/eth0/accept_ra=2", forwarding]
    managed = advertised.sysctl("conf/eth0/accept_ra", "0")
    assert to_set(managed) == [forwarding]
    assert "IPv6AcceptRA=yes" in said(managed)
    assert to_set(advertised.sysctl("conf/eth0/accept_ra", "2")) == [forwarding]
    assert to_set(vps().link("br0", "bridge")) == [forwarding]


def test_advertisements_that_are_taken_in_go_on_being_and_those_that_are_ignored_stay_so() -> None:
    heard = vps().link("br0", "bridge").hears("eth0")
    forwarding = "net.ipv6.conf.all.forwarding=1"
    assert to_set(heard) == ["net/ipv6/conf/eth0/accept_ra=2", forwarding], "an address may come by them"
    assert to_set(heard.sysctl("conf/eth0/forwarding", "1")) == [forwarding], "a static default route, and no others"


def test_where_all_forward_but_one_that_one_is_set() -> None:
    on = vps().link("br0", "bridge").sysctl("conf/all/forwarding", "1").sysctl("conf/eth0/forwarding", "1")
    assert to_set(on) == ["net/ipv6/conf/br0/forwarding=1"]
    assert to_set(on.sysctl("conf/br0/forwarding", "1")) == []


def test_the_way_back_gives_interfaces_that_forwarded_before_their_own_again() -> None:
    sketch = vps().link("br0", "bridge").sysctl("conf/br0/forwarding", "1").hears("eth0")
    assert ways_back(sketch.machine, decide(sketch.machine).settings) == [
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "sysctl -w net/ipv6/conf/eth0/accept_ra=1",
        "sysctl -w net/ipv6/conf/br0/forwarding=1",
    ]


# --- Any machine ---

NAMES = st.sampled_from(
    ["eth0", "eth1", "br0", "docker0", "wg0", "lan0", "incusbr0", 'a"b', "b\\xff", "v.100", "what*"]
)
KINDS = st.sampled_from(["", "bridge", "veth", "wireguard", "vlan", "macvlan", "ipvlan", "bond", "dummy", "tun"])
PREFIXES = st.sampled_from(
    [
        "2001:db8:1::/64",
        "2001:db8:1:0:a::/80",
        "2001:db8:2::/64",
        "2001:db8::/32",
        "2001:db8:1::9/128",
        "fd00::/64",
        "::/0",
    ]
)
ADDRESSES = st.sampled_from(
    ["2001:db8:1::%d/64", "2001:db8:1::%d/128", "2001:db8:2::%d/64", "2001:db8:1:0:a::%d/80", "fe80::%d/64"]
)
WORDS = st.sampled_from(["", "ra", "dynamic", "bare"])


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    sketch = Sketch()
    for name in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
        master = draw(st.sampled_from(["", *sketch.links])) if draw(st.integers(0, 3)) == 0 else ""
        sketch.link(name, draw(KINDS), master=master, up=draw(st.booleans()))
    names = st.sampled_from(sorted(sketch.links))
    for number, (text, name, word) in enumerate(draw(st.lists(st.tuples(ADDRESSES, names, WORDS), max_size=8))):
        sketch.address(text % (number + 1), name, word)
    for prefix, name, proto, kind in draw(
        st.lists(
            st.tuples(
                PREFIXES, names, st.sampled_from(["ra", "static", "dhcp"]), st.sampled_from(["", "", "unreachable"])
            ),
            max_size=8,
        )
    ):
        sketch.route(prefix, name, draw(st.sampled_from(["", "fe80::1"])), proto, kind)
    sketch.route("default", draw(names), "fe80::1")
    for address, name in draw(st.lists(st.tuples(st.integers(1, 99), names), max_size=4)):
        sketch.neighbour(f"2001:db8:1::{address:x}", name)
    return sketch


@given(sketches())
def test_whatever_a_machine_is_what_is_written_for_it_can_be_used_or_a_line_says_why_not(sketch: Sketch) -> None:
    try:
        plan = decide(sketch.machine)
    except MachineError:
        return
    text = document(plan)
    assert all(len(line) <= 110 for line in text.splitlines() if line.startswith("# ") and "=" not in line)
    if plan.problem:
        assert all(not line or line.startswith("#") for line in text.splitlines())
        return
    config = parse(text, "it")
    uplink_names = {entry.name for entry in plan.entries}
    assert {interface.name for interface in config.interfaces} <= uplink_names
    assert all(interface.name not in rule.via for interface in config.interfaces for rule in interface.rules)
    assert by_hand(plan.steps) or not plan.steps
    assert proof(plan, "")


def test_more_interfaces_behind_than_a_rule_has_names_for_are_counted_beside_it() -> None:
    names = tuple(f"tap{number}" for number in range(5000))
    text = document(Plan((Entry("eth0", (), (Rule("2001:db8:1::/64", "neighbour", names, ()),)),)))
    (entry,) = parse(text, "").interfaces
    assert entry.rules[0].via == names[:4096]
    assert "# 904 more are behind: a rule has at most 4,096 names, and a glob means several.\nvia" in text
