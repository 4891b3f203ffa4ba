# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are refused for what a rule of them says: each with its place, and a part of the message."""

from __future__ import annotations

from tests.core.configs import HERE, ITS_RULE, MINIMAL, RULE, interface, rule, via

TARGETS = (
    (
        "host bits",
        rule(prefix='"2001:db8::1/64"'),
        "2001:db8::1/64 has host bits set; write 2001:db8::/64 or 2001:db8::1;",
    ),
    ("host bits that are ::1", rule(prefix='"::1/64"'), "::1/64 has host bits set; write ::/64;"),
    ("IPv4", rule(prefix='"192.0.2.0/24"'), "must be an IPv6 prefix, and IPv6 only"),
    ("an IPv4 address", rule(prefix='"192.0.2.1"'), "must be an IPv6 prefix, and IPv6 only"),
    ("a scope id", rule(prefix='"fe80::1%wan0"'), "takes no scope id (%)"),
    ("a scope id with a length", rule(prefix='"2001:db8::%1/64"'), "takes no scope id (%)"),
    ("a length above 128", rule(prefix='"2001:db8::/129"'), "the prefix length must be a whole number from 0 to 128"),
    (
        "no length after the slash",
        rule(prefix='"2001:db8::/"'),
        "the prefix length must be a whole number from 0 to 128",
    ),
    ("an IPv4 mask", rule(prefix='"2001:db8::/255.0.0.0"'), "the prefix length must be a whole number from 0 to 128"),
    ("two slashes", rule(prefix='"2001:db8::/64/64"'), "must be an IPv6 prefix or address"),
    ("white space", rule(prefix='" 2001:db8::/64"'), "must be an IPv6 prefix or address"),
    ("nothing", rule(prefix='""'), 'must be an IPv6 prefix or address, such as "2001:db8:1::/64"; found the string ""'),
    ("a name", rule(prefix='"lan0"'), 'must be an IPv6 prefix or address, such as "2001:db8:1::/64"; found the string'),
    ("a name with a dash", rule(prefix='"lan-0"'), "must be an IPv6 prefix or address"),
    ("all of multicast", rule(prefix='"ff00::/8"'), "multicast addresses, :: and ::1 are never answered"),
    ("a multicast address", rule(prefix='"ff02::1:ff00:1"'), "multicast addresses, :: and ::1 are never answered"),
    (
        "a multicast prefix with host bits",
        rule(prefix='"ff02::1/16"'),
        "multicast addresses, :: and ::1 are never answered",
    ),
    ("the unspecified address", rule(prefix='"::"'), "multicast addresses, :: and ::1 are never answered"),
    ("loopback", rule(prefix='"::1"'), "multicast addresses, :: and ::1 are never answered"),
    ("both", rule(prefix='"::/127"', method='"ignore"'), "multicast addresses, :: and ::1 are never answered"),
    (
        "all of link-local",
        rule(prefix='"fe80::/10"'),
        'link-local targets need a rule each; write the address, such as "fe80::"',
    ),
    ("a link-local prefix", rule(prefix='"fe80::/64"'), "link-local targets need a rule each"),
    ("a link-local prefix with host bits", rule(prefix='"fe80::1/64"'), 'write the address, such as "fe80::1"'),
    ("two link-local addresses", rule(prefix='"febf::2/127"'), "link-local targets need a rule each"),
)


ENDS = 'both ends of a range must be whole IPv6 addresses, such as "2001:db8:1::10-2001:db8:1::1f"'


RANGE_TARGETS = (
    (
        "spaces without an end",
        rule(prefix=f'"2001:db8::1{" " * 4096}-2001:db8::2"'),
        "a string of at most 4,096 characters",
    ),
    (
        "the ends the wrong way round",
        rule(prefix='"2001:db8::2 - 2001:DB8::1"'),
        'the range ends before it begins; write "2001:db8::1-2001:db8::2"; found the string',
    ),
    ("a short end", rule(prefix='"2001:db8::10-1f"'), ENDS),
    ("no end", rule(prefix='"2001:db8::10-"'), ENDS),
    ("no beginning", rule(prefix='"-2001:db8::10"'), ENDS),
    ("a prefix as an end", rule(prefix='"2001:db8::-2001:db8:1::/64"'), ENDS),
    ("a range of IPv4", rule(prefix='"192.0.2.1-192.0.2.9"'), ENDS),
    ("space around a range", rule(prefix='" 2001:db8::1-2001:db8::2"'), ENDS),
    ("a tab in a range", rule(prefix=r'"2001:db8::1\t-2001:db8::2"'), ENDS),
    ("three ends", rule(prefix='"::2-::3-::4"'), "a range has two ends, such as"),
    ("a range with a scope id", rule(prefix='"fe80::1%wan-0-fe80::1"'), "takes no scope id (%)"),
    ("a range in multicast", rule(prefix='"ff02::1-ff02::9"'), "multicast addresses, :: and ::1 are never answered"),
    ("a range up to multicast", rule(prefix='"fec0::-ff00::"'), "are never answered; leave them out"),
    ("a range from loopback", rule(prefix='"::1-::5"'), "are never answered; leave them out"),
    (
        "a range in link-local",
        rule(prefix='"fe80::1-fe80::2"'),
        "link-local targets need a rule each; write the address of each; found the string",
    ),
    ("a range into link-local", rule(prefix='"fe00::-fe80::"'), "link-local targets need a rule each"),
    ("an interface without a name", rule(prefix='"interface:"'), "an interface's name has 1 to 15 characters, an"),
    (
        "an interface that is a glob",
        rule(prefix='"interface:lan*"'),
        'must be the exact name of one interface, such as "lan0"; found the string "interface:lan*"',
    ),
    ("an interface with a space", rule(prefix='"interface: lan0"'), 'holds no "/" and no white space'),
    ("an interface with a VLAN", rule(prefix='"interface:lan0:7"'), 'a VLAN device has a name such as "lan0.100"'),
    ("an interface in capitals", rule(prefix='"Interface:lan0"'), "must be an IPv6 prefix or address"),
)


VIA = f"{ITS_RULE}.via"


WAYS = (
    (
        "no via",
        rule(method='"neighbour"'),
        VIA,
        'missing; method "neighbour" needs the interfaces behind which targets live, such as via = ["lan0"]',
    ),
    *(
        (
            f"via with {method}",
            rule('via = ["lan0"]', method=f'"{method}"'),
            VIA,
            f'method "{method}" takes no via; leave it out, or write method = "route" or "neighbour"',
        )
        for method in ("static", "kernel", "ignore")
    ),
    (
        "via that is a string",
        via('"lan0"'),
        VIA,
        'must be an array of strings, such as ["lan0"]; found the string "lan0"',
    ),
    (
        "a via of more names than are looked at in one turn",
        via(str([f"lan{number}" for number in range(4097)]).replace("'", '"')),
        VIA,
        "must be an array of at most 4,096 strings; found one of 4,097",
    ),
    ("an empty via", via("[]"), VIA, 'must be an array of strings, such as ["lan0"]; found an empty array'),
    ("a via that is a number", via('["lan0", 7]'), f"{VIA}[1]", 'a string such as "lan0"; found the whole number 7'),
    ("a via that is an array", via('[["lan0"]]'), f"{VIA}[0]", 'must be a string such as "lan0"; found an array'),
    ("a via whose bracket isn't closed", via('["lan[0"]'), f"{VIA}[0]", 'a "[" is never closed'),
    ("a via that no name can match", via('["sixteen-letters-*"]'), f"{VIA}[0]", "has 1 to 15 characters"),
    ("a via of 128 characters", via(f'["{"x" * 128}"]'), f"{VIA}[0]", "has 1 to 15 characters"),
    ("a via with a VLAN", via('["lan0:7"]'), f"{VIA}[0]", 'holds no ":"; a VLAN device has a name such as "lan0.100"'),
    (
        "a via twice",
        via('["lan0", "lan1", "lan0"]'),
        f"{VIA}[2]",
        f"the same interface as {VIA}[0] (line 6); leave one of them out",
    ),
    (
        "a via that is the interface",
        via('["lan0", "wan0"]'),
        f"{VIA}[1]",
        '"wan0" is where the question comes from; name the other side\'s interface',
    ),
    *(
        (
            f"host_routes = {value} with {method}",
            rule(f"host_routes = {value}", method=f'"{method}"'),
            f"{ITS_RULE}.host_routes",
            f'method "{method}" takes no host_routes; leave it out, or write method = "neighbour"',
        )
        for method in ("static", "route", "kernel", "ignore")
        for value in ("true", "false")
    ),
    (
        "host_routes in quotes",
        rule('via = ["lan0"]\nhost_routes = "no"', method='"neighbour"'),
        f"{ITS_RULE}.host_routes",
        "must be true or false, without quotes",
    ),
    ("a rule's router in quotes", rule('router = "true"'), f"{ITS_RULE}.router", "must be true or false"),
    ("a rule's dad", rule('dad = "defends"'), f"{ITS_RULE}.dad", 'must be "ignore" or "defend", probably "defend"'),
    ("a rule's na_source", rule('na_source = "::1"'), f"{ITS_RULE}.na_source", 'must be "target" or "interface"'),
)


OUTSIDE = (
    'does not lie in 2001:db8:1::/64; write a suffix such as "::1", or an address, prefix or range in it; found the'
    " string"
)


SELECTIONS = (
    ("an address outside", '"2001:db8:2::1"', OUTSIDE),
    ("a prefix outside", '"2001:db8:1:1::/80"', OUTSIDE),
    ("a wider prefix", '"2001:db8::/32"', OUTSIDE),
    ("a suffix that is wider", '"::/63"', OUTSIDE),
    ("a suffix that is longer", '"0:0:0:1::1"', OUTSIDE),
    ("a range that ends outside", '"2001:db8:1::1-2001:db8:1:1::"', OUTSIDE),
    ("a range that begins outside", '"2001:db8::-2001:db8:1::"', OUTSIDE),
    ("a range around", '"2001:db8::-2001:db8:2::"', OUTSIDE),
    ("a suffix and an address", '"::10-2001:db8:1::1f"', f'{OUTSIDE} "::10-2001:db8:1::1f"'),
    ("host bits", '"::1:1/112"', "::1:1/112 has host bits set; write ::1:0/112 or ::1:1; found the string"),
    ("the ends the wrong way round", '"::1f-::10"', 'the range ends before it begins; write "::10-::1f"'),
    ("a short end", '"::10-1f"', ENDS),
    ("a bare number", '"10"', 'must be an IPv6 prefix or address, such as "::1:0/112"; found the string "10"'),
    ("a range of bare numbers", '"10-1f"', 'must be an IPv6 prefix or address, such as "::1:0/112"'),
    ("an IPv4 address", '"192.0.2.1"', "must be an IPv6 prefix, and IPv6 only"),
    ("a length above 128", '"::/129"', "the prefix length must be a whole number from 0 to 128"),
    ("a scope id", '"::1%wan0"', "takes no scope id (%)"),
    ("an interface", '"interface:lan0"', "must be an IPv6 prefix or address"),
    ("nothing", '""', "must be an IPv6 prefix or address"),
    ("a number", "1", 'must be a string such as "::10-::1f"; found the whole number 1'),
    ("an array", '["::1"]', 'must be a string such as "::10-::1f"; found an array'),
)


SELECTING = (
    *(
        (f"{name} in {key}", rule(f'{key} = ["::1", {value}]'), f"{ITS_RULE}.{key}[1]", fragment)
        for key in ("include", "exclude")
        for name, value, fragment in SELECTIONS
    ),
    (
        "an empty include",
        rule("include = []"),
        f"{ITS_RULE}.include",
        'must be an array of strings, such as ["::10-::1f", "::1:0/112"]; found an empty array',
    ),
    (
        "an exclude that is a string",
        rule('exclude = "::1"'),
        f"{ITS_RULE}.exclude",
        'must be an array of strings, such as ["::1"]; found the string "::1"',
    ),
    *(
        (
            f"{key} of {prefix}",
            rule(f'{key} = ["::1"]', prefix=f'"{prefix}"'),
            f"{ITS_RULE}.{key}",
            f"an address or a range as prefix takes no {key}; leave it out",
        )
        for key in ("include", "exclude")
        for prefix in ("2001:db8::1", "2001:db8::1/128", "2001:db8::10-2001:db8::1f", "2001:db8::1-2001:db8::1")
    ),
    (
        "host bits under an interface's prefixes",
        rule('include = ["::1/64"]', prefix='"interface:lan0"'),
        f"{ITS_RULE}.include[0]",
        "::1/64 has host bits set; write ::/64 or ::1",
    ),
    (
        "several link-local addresses",
        rule('include = ["::2", "fe80::1-fe80::2"]', prefix='"::/0"'),
        f"{ITS_RULE}.include[1]",
        'link-local targets need a rule each; write the address of each; found the string "fe80::1-fe80::2"',
    ),
)


TWICE = (
    ("an interface", MINIMAL + MINIMAL, "interface[1]", "the same name and vlan as interface[0] (line 1)"),
    (
        "an interface with its default said",
        MINIMAL + interface('vlan = "untagged"'),
        "interface[1]",
        "the same name and vlan as interface[0] (line 1)",
    ),
    (
        "a vlan in two spellings",
        interface("vlan = 7") + interface("", '"wan1"') + interface('vlan = "7"'),
        "interface[2]",
        "the same name and vlan as interface[0] (line 1)",
    ),
    ("a prefix", MINIMAL + RULE, f"{HERE}.rule[1].prefix", f"the same prefix as {HERE}.rule[0].prefix (line 4)"),
    (
        "a prefix with two methods",
        MINIMAL + RULE.replace("static", "ignore"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix (line 4)",
    ),
    (
        "an address in two spellings",
        rule(prefix='"::ABCD"') + RULE + RULE.replace("2001:db8:1::/64", "0::abcd/128"),
        f"{HERE}.rule[2].prefix",
        f"the same prefix as {HERE}.rule[0].prefix (line 4), ::abcd/128; leave it out of one of the two",
    ),
    (
        "an interface's prefixes",
        rule(prefix='"interface:lan0"') + RULE.replace("2001:db8:1::/64", "interface:lan0"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix (line 4), interface:lan0; leave it out of one of the two",
    ),
    (
        "an address at the end of a range",
        rule(prefix='"2001:db8::10-2001:db8::20"') + RULE.replace("2001:db8:1::/64", "2001:db8::20"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix (line 4), 2001:db8::20/128; leave it out of one of the two",
    ),
    (
        "two ranges with much in common",
        rule(prefix='"2001:db8::1-2001:db8::fffe"') + RULE.replace("2001:db8:1::/64", "2001:db8::1 - 2001:db8::ffef"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix (line 4), 2001:db8::1/128",
    ),
    (
        "what another rule includes",
        rule('include = ["::5", "::10-::1f"]') + RULE.replace("1::/64", "1::10/124"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].include[1] (line 6), 2001:db8:1::10/124; leave it out of one of the two",
    ),
    (
        "another rule, excluded",
        MINIMAL.replace("/64", "/80") + RULE + 'exclude = ["::1", "::/80"]\n',
        f"{HERE}.rule[1].exclude[1]",
        f"the same prefix as {HERE}.rule[0].prefix (line 4), 2001:db8:1::/80; leave it out of one of the two",
    ),
    (
        "an include and another rule's exclude",
        rule('exclude = ["::1:1"]') + RULE.replace("/64", "/80") + 'include = ["2001:db8:1::1:1"]\n',
        f"{HERE}.rule[1].include[0]",
        f"the same prefix as {HERE}.rule[0].exclude[0] (line 6), 2001:db8:1::1:1/128; leave it out of one of the two",
    ),
    (
        "a glob",
        interface("", '"w*"') + interface("", '"w*"'),
        "interface[1]",
        "the same name and vlan as interface[0] (line 1)",
    ),
    (
        "attach said in two ways of one glob",
        interface('attach = "native"', '"w*"') + interface('attach = "auto"\nvlan = 7', '"w*"'),
        "interface[1].attach",
        '"auto", but interface[0].attach (line 3) says "native"',
    ),
)
