# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are refused for what they say outside of rules: each with its place (by name, or line:column where it has
none), and a part of the message.
"""

from __future__ import annotations

from tests.core.configs import HERE, ITS_RULE, MINIMAL, RULE, daemon, interface, limits, listen, rule, web

SYNTAX = (
    (
        "an unquoted word",
        rule(method="static"),
        "5:10",
        "not valid TOML: Invalid value; text needs quotes",
    ),
    (
        "an unquoted word that begins as a number",  # inf
        daemon("log_level = info"),
        "2:16",
        "text needs quotes",
    ),
    ("no value", MINIMAL + "via =", "6:6", "not valid TOML"),
    (
        "a key twice",
        daemon('log_level = "info"\nlog_level = "info"\n'),
        "3:1",
        "a key or table is there twice, or both as [table] and as [[table]]; the first is in line 2",
    ),
    ("a table twice", "[daemon]\n[daemon]\n", "2:1", "Cannot declare daemon twice; the first is in line 1"),
    (
        "a table in a table twice",
        "[interface.rule]\n[interface.rule]\n",
        "2:1",
        "declare interface.rule twice; the first is in line 1",
    ),
    ("[interface] and [[interface]]", "[interface]\n[[interface]]", "2:1", "as [table] and as [[table]]"),
    ("a control character", "[daemon]\nlog_level = '\x00'", "2:14", "not valid TOML"),
    ("more digits than Python takes", limits("pending = " + "9" * 5000), "", "a number is too long"),
    ("nesting deeper than Python goes", "a = " + "[" * 100_000, "", "nest too deeply"),
)


TABLES = (
    ("an empty file", "", "", "no interface; write [[interface]]"),
    ("no interface", "[daemon]\n", "", "no interface; write [[interface]]"),
    ("an empty array of interfaces", "interface = []", "", "no interface; write [[interface]]"),
    ("no rule", '[[interface]]\nname = "wan0"', HERE, "no rule; write [[interface.rule]]"),
    ("an empty array of rules", '[[interface]]\nname = "wan0"\nrule = []', HERE, "no rule; write [[interface.rule]]"),
    (
        "single brackets around interface",
        MINIMAL.replace("[[interface]]", "[interface]"),
        "interface",
        "[[interface]], in double brackets",
    ),
    (
        "single brackets around rule",
        MINIMAL.replace("[[interface.rule]]", "[interface.rule]"),
        f"{HERE}.rule",
        "[[interface.rule]], in double brackets",
    ),
    (
        "an interface that is no table",
        'interface = "wan0"',
        "interface",
        'must be a table; write [[interface]]; found the string "wan0"',
    ),
    (
        "an interface in an array that is no table",
        "interface = [1]",
        "interface[0]",
        "must be a table; write [[interface]]; found the whole number 1",
    ),
    (
        "a rule that is no table",
        '[[interface]]\nname = "wan0"\nrule = "::/0"',
        f"{HERE}.rule",
        'must be a table; write [[interface.rule]]; found the string "::/0"',
    ),
    (
        "a rule in an array that is no table",
        '[[interface]]\nname = "wan0"\nrule = ["::/0"]',
        ITS_RULE,
        'must be a table; write [[interface.rule]]; found the string "::/0"',
    ),
    (
        "double brackets around daemon",
        "[[daemon]]\n" + MINIMAL,
        "daemon",
        "must be one table; write [daemon]; found an array",
    ),
    (
        "metrics that is no table",
        'metrics = "[::1]:9846"\n' + MINIMAL,
        "metrics",
        "must be one table; write [metrics]; found the string",
    ),
    (
        "limits that is no table",
        "limits = 5\n" + MINIMAL,
        "limits",
        "must be one table; write [limits]; found the whole number 5",
    ),
    ("no name", f"[[interface]]\n{RULE}", f"{HERE}.name", 'missing; write one such as name = "wan0"'),
    (
        "no prefix",
        rule().replace("prefix =", "#"),
        f"{ITS_RULE}.prefix",
        'missing; write one such as prefix = "2001:db8:1::/64"',
    ),
    (
        "no method",
        rule().replace("method =", "#"),
        f"{ITS_RULE}.method",
        'missing; write one such as method = "static"',
    ),
)


UNKNOWN = (
    ("a table like a known one", "[deamon]\n" + MINIMAL, "deamon", 'unknown key "deamon"; did you mean "daemon"?'),
    (
        "a table in the plural",
        MINIMAL.replace("[[interface]]", "[[interface]]\nrules = []"),
        f"{HERE}.rules",
        'did you mean "rule"?',
    ),
    (
        "a table like nothing",
        "[xyzzy]\n" + MINIMAL,
        "xyzzy",
        'unknown key "xyzzy"; a file has [daemon], [[interface]], [limits], [metrics]',
    ),
    ("a key like a known one", listen('""\nlisten_on = ""'), "metrics.listen_on", 'did you mean "listen"?'),
    ("a key in capitals", interface("Router = true"), f"{HERE}.Router", 'did you mean "router"?'),
    ("a key like one that may be left out", rule("exlude = []"), f"{ITS_RULE}.exlude", 'did you mean "exclude"?'),
    (
        "a key like nothing",
        limits("xyzzy = 1"),
        "limits.xyzzy",
        'unknown key "xyzzy"; [limits] has events_per_second, pending, neighbours, kernel_entries, kernel_entry_age',
    ),
    (
        "a rule's key like nothing",
        rule("xyzzy = 1"),
        f"{ITS_RULE}.xyzzy",
        'unknown key "xyzzy"; [[interface.rule]] has prefix, method, via, include, exclude, router, dad, na_source,'
        " host_routes",
    ),
    (
        "a key of another table",
        rule('datapath = "python"'),
        f"{ITS_RULE}.datapath",
        "does not belong here; write it under [[interface]]",
    ),
    (
        "a key of two other tables",
        daemon('dad = "defend"'),
        "daemon.dad",
        "write it under [[interface]] or [[interface.rule]]",
    ),
    ("a key outside its table", 'listen = ""\n' + MINIMAL, "listen", "does not belong here; write it under [metrics]"),
    ("a key with a space", interface('"a b" = 1'), f'{HERE}."a b"', 'unknown key "a b"'),
    ("a key with a line break", daemon(r'"a\nb" = 1'), r'daemon."a\nb"', r'unknown key "a\nb"'),
    ("a key with a dot", interface('"rule.prefix" = "::/0"'), f'{HERE}."rule.prefix"', 'unknown key "rule.prefix"'),
    ("an endless key", daemon("k" * 999 + " = 1"), f'daemon."{"k" * 57}..."', 'unknown key "kkk'),
)


VALUES = (
    (
        "a log level like a known one",
        daemon('log_level = "warn"'),
        "daemon.log_level",
        'must be "debug" or "info" or "warning" or "error", probably "warning"; found the string "warn"',
    ),
    (
        "a log level in capitals",
        daemon('log_level = "INFO"'),
        "daemon.log_level",
        'probably "info"; found the string "INFO"',
    ),
    (
        "a log level that is a number",
        daemon("log_level = 3"),
        "daemon.log_level",
        'or "error"; found the whole number 3',
    ),
    (
        "a log format",
        daemon('log_format = "xml"'),
        "daemon.log_format",
        'must be "text" or "json"; found the string "xml"',
    ),
    ("attach", interface('attach = "driver"'), f"{HERE}.attach", 'must be "auto" or "native" or "tc" or "generic"'),
    ("tc_order", interface("tc_order = 1"), f"{HERE}.tc_order", 'must be "first" or "last"; found the whole number 1'),
    ("datapath", interface('datapath = "xdp"'), f"{HERE}.datapath", 'must be "hybrid" or "python" or "monitor"'),
    ("dad", interface("dad = false"), f"{HERE}.dad", 'must be "ignore" or "defend"; found false'),
    (
        "na_source",
        interface('na_source = "interfaces"'),
        f"{HERE}.na_source",
        'must be "target" or "interface", probably "interface"',
    ),
    (
        "router as a number",
        interface("router = 1"),
        f"{HERE}.router",
        "must be true or false, without quotes; found the whole number 1",
    ),
    (
        "router in quotes",
        interface('router = "true"'),
        f"{HERE}.router",
        'must be true or false, without quotes; found the string "true"',
    ),
    (
        "a method that isn't any",
        rule(method='"proxy"'),
        f"{ITS_RULE}.method",
        'must be "static" or "route" or "neighbour" or "kernel" or "ignore"; found the string "proxy"',
    ),
    (
        "a method in another spelling",
        rule(method='"neighbor"'),
        f"{ITS_RULE}.method",
        'probably "neighbour"; found the string "neighbor"',
    ),
    *(
        (
            f"ndppd's word {theirs}",
            rule(method=f'"{theirs}"'),
            f"{ITS_RULE}.method",
            'must be "static" or "route" or "neighbour" or "kernel" or "ignore";'
            f' what ndppd calls "{theirs}" is "{ours}" here; found the string "{theirs}"',
        )
        for theirs, ours in (("auto", "route"), ("iface", "neighbour"))
    ),
    ("a method that is true", rule(method="true"), f"{ITS_RULE}.method", 'or "ignore"; found true'),
    (
        "a name that is a number",
        interface("", "0"),
        f"{HERE}.name",
        'must be a string such as "wan0"; found the whole number 0',
    ),
    (
        "a prefix that is an array",
        rule(prefix='["::/0"]'),
        f"{ITS_RULE}.prefix",
        'must be a string such as "2001:db8:1::/64"; found an array',
    ),
    ("a prefix that is a table", rule(prefix='{ a = "::/0" }'), f"{ITS_RULE}.prefix", "found a table"),
    (
        "listen that is a port",
        listen("9846"),
        "metrics.listen",
        'must be a string such as "[::1]:9846"; found the whole number 9846',
    ),
    ("listen that is a date", listen("2026-02-03"), "metrics.listen", "found a date or time"),
    ("listen that is not a number", listen("nan"), "metrics.listen", "found the number nan"),
    ("listen that is a huge number", listen("0x" + "f" * 5000), "metrics.listen", "found a huge whole number"),
    ("a string over two lines", daemon(r'log_level = "in\nfo"'), "daemon.log_level", r'found the string "in\nfo"'),
    (
        "a string with a line separator",
        daemon('log_level = "\u2028"'),
        "daemon.log_level",
        r'found the string "\u2028"',
    ),
    (
        "an endless string",
        daemon(f'log_level = "{"x" * 999}"'),
        "daemon.log_level",
        f'found the string "{"x" * 57}..."',
    ),
)


ENDPOINTS = (
    (
        "more addresses than sockets are made of at once",
        listen(str([f"127.0.0.{number}:9846" for number in range(1, 66)]).replace("'", '"')),
        "metrics.listen",
        "must be an array of at most 64 strings; found one of 65",
    ),
    (
        "no brackets",
        listen('"::1:9846"'),
        "metrics.listen",
        'ADDRESS:PORT, IPv6 in brackets; write "[::1]:9846"; found the string',
    ),
    ("no brackets, another port", listen('"2001:db8::1:80"'), "metrics.listen", 'write "[2001:db8::1]:80"'),
    ("no brackets, no port", listen('"2001:db8::1"'), "metrics.listen", 'write "[2001:db8::1]:9846"'),
    ("brackets that don't close", listen('"[::1:9846"'), "metrics.listen", 'write "[::1]:9846"'),
    ("IPv6 without a port", listen('"[::1]"'), "metrics.listen", 'the port is missing; write "[::1]:9846"'),
    ("IPv4 without a port", listen('"127.0.0.1"'), "metrics.listen", 'the port is missing; write "127.0.0.1:9846"'),
    ("a colon without a port", listen('"127.0.0.1:"'), "metrics.listen", 'the port is missing; write "127.0.0.1:9846"'),
    ("a port without an address", listen('":9846"'), "metrics.listen", "must be an IP address, not a name, and a port"),
    ("a host name", listen('"localhost:9846"'), "metrics.listen", "must be an IP address, not a name, and a port"),
    ("a host name in brackets", listen('"[localhost]:9846"'), "metrics.listen", "must be an IP address, not a name"),
    ("IPv4 in brackets", listen('"[127.0.0.1]:80"'), "metrics.listen", 'takes no brackets; write "127.0.0.1:80"'),
    ("a scope id", listen('"[fe80::1%wan0]:9846"'), "metrics.listen", "takes no scope id (%)"),
    ("port 0", listen('"[::1]:0"'), "metrics.listen", "the port must be a whole number from 1 to 65535"),
    ("port 65536", listen('"[::1]:65536"'), "metrics.listen", "the port must be a whole number from 1 to 65535"),
    ("a port in digits of another script", listen('"[::1]:٨٠"'), "metrics.listen", "the port must be a whole number"),
    ("no address", listen("[]"), "metrics.listen", 'such as ["[::1]:9846", "192.0.2.1:9846"]; found an empty array'),
    ("off among others", listen('["[::1]:1", ""]'), "metrics.listen[1]", "must be an IP address, not a name"),
    ("a port among others", listen('["[::1]:1", 2]'), "metrics.listen[1]", 'such as "[::1]:9846"; found the whole'),
    (
        "one twice",
        listen('["[::1]:1", "[::1]:2", "[0::1]:1"]'),
        "metrics.listen[2]",
        "metrics.listen[0] listens there, too; leave one of them out",
    ),
    ("one beside all", listen('["[::]:1", "[::1]:1"]'), "metrics.listen[1]", "metrics.listen[0] listens there, too"),
    ("all behind one", listen('["[::1]:1", "[::]:1"]'), "metrics.listen[0]", "metrics.listen[1] listens there, too"),
    ("IPv4 beside all", listen('["0.0.0.0:1", "[::]:1"]'), "metrics.listen[0]", "metrics.listen[1] listens there"),
    ("all of IPv4", listen('["0.0.0.0:1", "192.0.2.1:1"]'), "metrics.listen[1]", "metrics.listen[0] listens there"),
    (
        "a web configuration that is no path",
        web("1"),
        "metrics.web_config",
        'such as "/etc/npd6-xdp/web.yml"; found the',
    ),
    ("one from here", web('"web.yml"'), "metrics.web_config", "must be the absolute path of a file, such as"),
    ("one that is a directory", web('"/etc/"'), "metrics.web_config", "must be the absolute path of a file, such as"),
    ("one with a zero byte", web(r'"/etc/\u0000"'), "metrics.web_config", "a path holds no zero byte"),
    ("a service's name", listen('"127.0.0.1:http"'), "metrics.listen", "the port must be a whole number"),
)


NAMES = (
    ("an empty name", interface("", '""'), f"{HERE}.name", "an interface's name has 1 to 15 characters"),
    (
        "128 characters",
        interface("", f'"{"x" * 128}"'),
        f"{HERE}.name",
        "an interface's name has 1 to 15 characters, an alternative one up to 127",
    ),
    ("128 octets", interface("", f'"{"ü" * 64}"'), f"{HERE}.name", "an interface's name has 1 to 15 characters"),
    ("a slash", interface("", '"wan/0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a space", interface("", '"wan 0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a tab", interface("", r'"wan\t0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a zero byte", interface("", r'"wan\u0000"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a directory", interface("", '".."'), f"{HERE}.name", 'holds no "/" and no white space; found the string ".."'),
    (
        "a glob without a match of 15 characters",
        interface("", '"sixteen-letters*?"'),
        f"{HERE}.name",
        "an interface's name has 1 to 15 characters",
    ),
    (
        "a bracket that doesn't close",
        interface("", '"wan[0-3"'),
        f"{HERE}.name",
        'a "[" is never closed; write "[[]" for the character itself; found the string "wan[0-3"',
    ),
    ("an empty bracket", interface("", '"wan[]"'), f"{HERE}.name", 'a "[" is never closed'),
    ("an empty bracket that negates", interface("", '"wan[!]"'), f"{HERE}.name", 'a "[" is never closed'),
    (
        "a bracket that matches nothing",
        interface("", '"wan[9-0]"'),
        f"{HERE}.name",
        '"[9-0]" matches no character; write what it may be, such as "[0-9]"',
    ),
    ("a glob with a slash", interface("", '"wan/*"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a glob with a space", interface("", '"wan0 *"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a glob with a colon", interface("", '"wan[[:digit:]]"'), f"{HERE}.name", 'holds no ":"; a VLAN is a key'),
    ("a VLAN after a colon", interface("", '"wan0:100"'), f"{HERE}.name", 'holds no ":"; a VLAN is a key of its own'),
)


TAGS = (
    (
        "two tags without quotes",
        interface("vlan = 100.7"),
        f"{HERE}.vlan",
        'write vlan = "100.7"; found the number 100.7',
    ),
    ("two tags without quotes that end in 0", interface("vlan = 100.70"), f"{HERE}.vlan", 'write vlan = "100.70"'),
    ("VLAN 0", interface("vlan = 0"), f"{HERE}.vlan", "VLAN 0 is none: its tag carries a priority only"),
    ("VLAN 0 inside", interface('vlan = "100.0"'), f"{HERE}.vlan", "VLAN 0 is none"),
    ("VLAN 0 without quotes inside", interface("vlan = 100.0"), f"{HERE}.vlan", "VLAN 0 is none"),
    ("VLAN 4095", interface("vlan = 4095"), f"{HERE}.vlan", "VLAN 4095 is reserved (IEEE 802.1Q)"),
    ("VLAN 4095 outside", interface('vlan = "4095.1"'), f"{HERE}.vlan", "VLAN 4095 is reserved"),
    ("VLAN 4096", interface("vlan = 4096"), f"{HERE}.vlan", "a VLAN is 1 to 4094; found the whole number 4096"),
    ("a negative VLAN", interface("vlan = -1"), f"{HERE}.vlan", "a VLAN is 1 to 4094; found the whole number -1"),
    (
        "a VLAN with an exponent",
        interface("vlan = 1e2"),
        f"{HERE}.vlan",
        'or two such as "100.7"; found the number 1e2',
    ),
    (
        "three tags",
        interface('vlan = "1.2.3"'),
        f"{HERE}.vlan",
        'must be "untagged", "any", a VLAN such as 100, or two',
    ),
    ("a word", interface('vlan = "tagged"'), f"{HERE}.vlan", 'found the string "tagged"'),
    ("true", interface("vlan = true"), f"{HERE}.vlan", 'must be "untagged", "any", a VLAN such as 100'),
    ("a list", interface("vlan = [100, 7]"), f"{HERE}.vlan", "found an array"),
    ("a huge number", interface("vlan = 0x" + "f" * 5000), f"{HERE}.vlan", "found a huge whole number"),
    ("digits of another script", interface('vlan = "٧"'), f"{HERE}.vlan", 'must be "untagged"'),
)


LIMITS = tuple(
    (f"{place} that is {value}", text(f"{place.rpartition('.')[2]} = {value}"), place, f"{bounds}; found {found}")
    for text, place, bounds in (
        (limits, "limits.pending", "must be a whole number from 1 to 65536, without quotes"),
        (interface, f"{HERE}.events_per_source", "must be a whole number from 0 to 10000000, without quotes"),
        (interface, f"{HERE}.collect_targets", "must be a whole number from 0 to 1000000, without quotes"),
        (interface, f"{HERE}.new_targets_per_second", "must be a whole number from 0 to 1000000, without quotes"),
    )
    for value, found in (
        ("true", "true"),
        ('"5"', 'the string "5"'),
        ("5.0", "the number 5.0"),
        ("-1", "the whole number -1"),
        ("10_000_001", "the whole number 10000001"),
        ("0x" + "f" * 99, "a huge whole number"),
        ("[5]", "an array"),
    )
)


PATH = 'must be the absolute path of a socket, such as "/run/npd6-xdp/control.sock"'


PATHS = (
    (
        "a path longer than any",
        f'[metrics]\nweb_config = "/{"x" * 4096}"\n{MINIMAL}',
        "metrics.web_config",
        'must be a string of at most 4,096 characters, such as "/etc/npd6-xdp/web.yml"; found the string "/xxx',
    ),
    ("an empty path", daemon('control = ""'), "daemon.control", f'{PATH}; found the string ""'),
    ("a relative path", daemon('control = "run/x"'), "daemon.control", f'{PATH}; found the string "run/x"'),
    ("a directory", daemon('control = "/run/"'), "daemon.control", PATH),
    ("a path of 108 bytes", daemon(f'control = "/{"x" * 107}"'), "daemon.control", "has at most 107 bytes"),
    ("a path of 55 two-byte characters", daemon(f'control = "/{"ü" * 54}"'), "daemon.control", "at most 107 bytes"),
    ("a path with a zero byte", daemon(r'control = "/x\u0000"'), "daemon.control", "a path holds no zero byte"),
    (
        "a path that is true",
        daemon("control = true"),
        "daemon.control",
        'a string such as "/run/npd6-xdp/control.sock"',
    ),
)
