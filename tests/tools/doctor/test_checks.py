# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that this machine gives no reason for: an old kernel, a card that hides tags, a full table, a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Limits
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.table_space import TableSpace
from npd6_xdp.core.vlan_filter import KeptBack
from npd6_xdp.system.bpf.events import refusal
from npd6_xdp.system.privileges import CAPABILITIES, NUMBERS
from npd6_xdp.tools.doctor import hosts, interface, kernel_proxy, machine, others, routes, unit, web
from npd6_xdp.tools.doctor.facts import Answerer, Facts, MachineFacts, NetworkdLine, Port, Program, Service, Unit
from npd6_xdp.tools.doctor.finding import Finding, Level, fail, findings_json, findings_text, is_failed, ok, warn

TEXT = """\
[[interface]]
name = "wan0"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
[[interface]]
name = "wan0"
vlan = 100
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "static"
"""
MAC = bytes.fromhex("020000000002")
KEPT_BACK = KeptBack("wan0: it keeps back VLAN 100 and 7", ("ip link add 100", "ip link add 7"))
WELL = MachineFacts("6.12.1-1", "0.31.0", "", (), "", 256, 256, "", "2", -1, 1 << 22, 1.8e9, None)


def facts() -> Facts:
    config = parse(TEXT, "x")
    link = LinkFacts("wan0", 2, MAC, addresses={(): (OwnAddress(IPv6Address("2001:db8::2")),)})
    port = Port(LinkEntry(2, "wan0", MAC, True, "", 0, 0, 0, flags=1, mtu=1500), "ixgbe", None, (), rxvlan=False)
    links = {"wan0": link}
    path = Path("/etc/x.toml")
    return Facts(config, path, TEXT, 0.0, path, links, build(config, links), WELL, {"wan0": port})


def of(found: Iterator[Finding], check: str) -> Finding:
    (one,) = [each for each in found if each.check == check]
    return one


def test_a_web_configuration_is_looked_at_where_there_is_one(tmp_path: Path) -> None:
    its = facts()
    assert list(web.checks(its)) == []
    path = tmp_path / "web.yml"
    config = replace(its.config, metrics_web_config=str(path), metrics_listen=(("192.0.2.1", 80),))

    def found() -> list[Finding]:
        return list(web.checks(replace(its, config=config, web=web.read_web_files(config))))

    assert found() == [fail("web_config", f"{path}: can't read it: No such file or directory")]
    path.write_text("http_server_config: {http2: false}")
    assert found() == [ok("web_config", f"{path} can be used, with the files that it names")]
    path.write_text("a: 1\nb: 2")
    assert [each.level for each in found()] == [Level.FAIL] * 2
    path.write_text(f"basic_auth_users: {{alice: $2y$10${'O' * 53}}}")
    (one,) = found()
    assert (one.level, one.message[-20:]) == (Level.WARN, "work for all to read")


@pytest.mark.parametrize(
    ("changed", "check", "level", "words"),
    [
        (WELL, "kernel", Level.OK, "Linux 6.12.1-1"),
        (WELL._replace(kernel="5.15.0-91-generic"), "kernel", Level.FAIL, "5.18 or newer"),
        (WELL._replace(kernel="7.2-rc1"), "kernel", Level.OK, "7.2"),
        (WELL._replace(time=86400.0), "clock", Level.WARN, "1970-01-02"),
        (WELL._replace(synchronised=False), "clock", Level.NOTE, "the kernel knows of nothing that keeps it right"),
        (WELL._replace(synchronised=True), "clock", Level.OK, "UTC, synchronised"),
        (WELL._replace(program="the verifier says no\nand why"), "program", Level.FAIL, "no; and why"),
        (WELL._replace(program=None, missing=("CAP_BPF",)), "program", Level.NOTE, "not tried"),
        (WELL._replace(missing=("CAP_BPF",)), "capabilities", Level.NOTE, "CAP_BPF"),
    ],
)
def test_the_machine(changed: MachineFacts, check: str, level: Level, words: str) -> None:
    found = of(machine.checks(replace(facts(), machine=changed)), check)
    assert found.level is level
    assert words in found.message


ALL = sum(1 << NUMBERS[name] for name in CAPABILITIES)
SERVICE = Service("npd6-xdp", ALL, 512 << 20)
AS_SERVICE = WELL._replace(service=SERVICE)
UNTRIED = AS_SERVICE._replace(program=None, pages=0)


@pytest.mark.parametrize(
    ("changed", "check", "level", "words"),
    [
        (AS_SERVICE, "perf_events", Level.OK, "to the service (kernel.perf_event_paranoid is 2)"),
        (AS_SERVICE._replace(paranoid="3"), "perf_events", Level.OK, "perf_event_paranoid is 3"),
        (AS_SERVICE._replace(pages=0, no_ring=refusal("3")), "perf_events", Level.FAIL, "no ring for the service: "),
        (UNTRIED._replace(paranoid="3"), "perf_events", Level.WARN, "which the service isn't given"),
        (UNTRIED, "perf_events", Level.NOTE, "not tried; kernel.perf_event_paranoid is 2"),
        (
            UNTRIED._replace(service=None, paranoid="4"),
            "perf_events",
            Level.NOTE,
            "(Debian, Ubuntu) want CAP_SYS_ADMIN",
        ),
        (
            UNTRIED._replace(service=SERVICE._replace(capabilities=ALL | 1 << 21), paranoid="4"),
            "perf_events",
            Level.NOTE,
            "is 4",
        ),
        (AS_SERVICE, "capabilities", Level.OK, "the service is given them"),
        (WELL._replace(service=Service("root", 1 << 21, -1)), "capabilities", Level.FAIL, "CAP_NET_ADMIN, CAP_NET_RAW"),
        (UNTRIED._replace(service=SERVICE._replace(locked_memory=1 << 20)), "locked_memory", Level.WARN, "1024 KiB"),
        (UNTRIED, "locked_memory", Level.OK, "524288 KiB"),
    ],
)
def test_what_the_service_may_is_judged_and_not_what_this_process_may(
    changed: MachineFacts, check: str, level: Level, words: str
) -> None:
    found = of(machine.checks(replace(facts(), machine=changed)), check)
    assert found.level is level
    assert words in found.message
    assert bool(found.mend) == (level in (Level.WARN, Level.FAIL))
    if "paranoid" in found.message and found.mend:
        assert found.mend[0] == "sysctl -w kernel.perf_event_paranoid=2"
        assert found.mend[1] == "printf 'kernel.perf_event_paranoid = 2\\n' > /etc/sysctl.d/npd6-xdp.conf"


def test_what_the_unit_gives_goes_by_its_user_and_counts_where_it_runs_the_daemon() -> None:
    given = {"LoadState": "loaded", "ActiveState": "inactive", "User": "npd6-xdp", "LimitMEMLOCKSoft": "1048576"}
    given |= {"AmbientCapabilities": "cap_bpf cap_perfmon", "CapabilityBoundingSet": "cap_chown cap_bpf cap_sys_admin"}
    assert unit.service_of(Unit(given), runs=False) == Service("npd6-xdp", 1 << 39, 1 << 20)
    given |= {"User": "", "LimitMEMLOCKSoft": "infinity"}
    assert unit.service_of(Unit(given), runs=False) == Service("root", 1 << 39 | 1 << 21, -1)
    assert unit.service_of(Unit(given), runs=True) is None
    assert unit.service_of(Unit({**given, "ActiveState": "active"}), runs=True) is not None
    assert unit.service_of(Unit({**given, "LoadState": "not-found"}), runs=False) is None
    assert unit.service_of(Unit(), runs=False) is None


def port(**changes: Any) -> Facts:
    its = facts()
    return replace(its, ports={"wan0": its.ports["wan0"]._replace(**changes)})


@pytest.mark.parametrize(
    ("its", "check", "level", "words"),
    [
        (lambda: port(), "offload", Level.OK, "stay in the frames"),
        (lambda: port(rxvlan=True), "offload", Level.WARN, "hide VLAN tags"),
        (lambda: port(), "vlan_filter", Level.OK, "no filter keeps back"),
        (lambda: port(kept_back=KEPT_BACK), "vlan_filter", Level.WARN, "keeps back"),
        (lambda: at_tc(kept_back=KEPT_BACK), "vlan_filter", Level.WARN, "keeps back"),
        (lambda: port(), "native", Level.OK, "as the driver is known for it"),
        (lambda: port(driver="r8169"), "native", Level.NOTE, "r8169"),
        (lambda: port(driver="r8169"), "native", Level.NOTE, ": by tc then"),
        (lambda: old(port(driver="r8169")), "native", Level.NOTE, ": generic mode then, which is slower"),
        (lambda: port(programs=(Program(9, "xdp", "xdp_dispatcher"),)), "xdp", Level.NOTE, "by tc then, beside it"),
        (lambda: old(port(programs=(Program(9, "xdp", "xdp_pass"),))), "xdp", Level.FAIL, "another XDP program"),
        (lambda: port(driver="r8169", features=1), "native", Level.OK, "native mode"),
        (lambda: port(features=0), "native", Level.NOTE, "runs no XDP programs"),
        (lambda: port(tried="the driver refuses"), "native", Level.NOTE, "the driver refuses"),
        (lambda: port(entry=facts().ports["wan0"].entry._replace(mtu=9000)), "mtu", Level.NOTE, "MTU 9000"),
    ],
)
def test_an_interface(its: Callable[[], Facts], check: str, level: Level, words: str) -> None:
    found = of(interface.checks(its()), check)
    assert found.level is level
    assert words in found.message
    if check == "offload" and level is Level.WARN:
        assert found.mend == ("ethtool -K wan0 rxvlan off",)
    if check == "vlan_filter":
        assert found.mend == (KEPT_BACK.mend if level is Level.WARN else ())


@pytest.mark.parametrize(
    ("programs", "level", "words"),
    [
        ((), Level.WARN, "somebody has just taken that off"),
        ((Program(9, "xdp", "ns_filter"),), Level.OK, "the daemon's program sits there"),
        ((Program(9, "xdp"),), Level.OK, "the daemon's program sits there"),  # its name is for root to see
        ((Program(9, "xdp", "xdp_pass"),), Level.NOTE, "another XDP program sits there"),
    ],
)
def test_what_the_kernel_has_is_held_against_what_the_daemon_takes_for_attached(
    programs: tuple[Program, ...], level: Level, words: str
) -> None:
    """tests/netns/test_doctor_attached.py makes what lasts long enough to be looked at."""
    status = {"interfaces": [{"port": "wan0", "attach": "native"}]}
    found = of(interface.checks(replace(port(programs=programs), status=status)), "xdp")
    assert found.level is level
    assert words in found.message


def at_tc(**changes: Any) -> Facts:
    """The interface is to be attached by tc, on a kernel that may have it."""
    its = port(**changes)
    text = f"{TEXT[: TEXT.rindex('[[interface]]')]}".replace('"wan0"', '"wan0"\nattach = "tc"')
    return replace(its, config=parse(text, "x"), text=text)


def test_whoever_stands_before_the_daemons_program_at_tc_is_told_to_have_each_frame_first() -> None:
    ours, other, nameless = Program(7, "tc", "ns_filter_tc"), Program(8, "tc", "cil_from_netdev"), Program(9, "tc")

    def told(*programs: Program) -> list[str]:
        its = replace(at_tc(at_tc=programs), status={"interfaces": [{"port": "wan0", "attach": "tc"}]})
        return [each.message for each in interface.checks(its) if each.check == "tc" and each.level is Level.NOTE]

    end = "what is accepted, dropped or redirected there isn't seen here"
    assert told(other, nameless, ours) == [f"wan0: before it id 8 (cil_from_netdev), id 9: {end}"]
    assert told(ours, other, nameless) == []
    assert told(other, nameless) == [], "it may be either"


def old(its: Facts) -> Facts:
    return replace(its, machine=its.machine._replace(kernel="6.1.0-39-amd64"))


def in_generic_mode(**changes: Any) -> Facts:
    its = at_tc(**changes)
    text = its.text.replace('"tc"', '"generic"')
    return replace(its, config=parse(text, "x"), text=text)


@pytest.mark.parametrize(
    "programs",
    [(Program(9, "xdpgeneric", "suricata", (("Suricata-Main", 77),)),), (Program(9, "xdpgeneric", "xdp_pass"),)],
)
def test_another_program_is_to_end_only_where_there_is_no_tc_to_sit_beside_it(programs: tuple[Program, ...]) -> None:
    found = of(interface.checks(in_generic_mode(programs=programs)), "xdp")
    assert found.level is Level.FAIL
    (mend,) = found.mend
    assert "sed -i" in mend
    assert '"auto"' in mend
    assert 'attach = "auto" would sit beside it, by tc' in found.message
    found = of(interface.checks(old(in_generic_mode(programs=programs))), "xdp")
    ends = "kill 77" if programs[0].holders else "ip link set dev wan0 xdpgeneric off"
    assert (found.level, found.mend) == (Level.FAIL, (ends,))
    assert "auto" not in found.message


@pytest.mark.parametrize(
    ("its", "check", "level", "words"),
    [
        (lambda: at_tc(), "tc", Level.OK, "wan0: by tc"),
        (lambda: at_tc(tried=""), "tc", Level.OK, "takes the program"),
        (lambda: at_tc(tried="no links at tc"), "tc", Level.FAIL, "no links at tc"),
        (lambda: old(at_tc()), "tc", Level.FAIL, "Linux 6.1.0-39-amd64 has no links at tc"),
        (
            lambda: at_tc(at_tc=(Program(7, "tc", "cil_from_netdev"), Program(8, "tc"))),
            "tc",
            Level.OK,
            "in this order: id 7 (cil_from_netdev), id 8",
        ),
        (lambda: at_tc(programs=(Program(9, "xdp", "xdp_dispatcher"),)), "xdp", Level.NOTE, "id 9, xdp_dispatcher"),
        (lambda: at_tc(rxvlan=True, driver="r8169", features=0), "offload", Level.OK, "wherever they stand"),
    ],
)
def test_an_interface_at_whose_tc_it_is_to_sit(its: Callable[[], Facts], check: str, level: Level, words: str) -> None:
    said = [*interface.checks(its())]
    found = of(iter(said), check)
    assert found.level is level
    assert words in found.message
    assert not {"native", "mtu"} & {each.check for each in said}, "that is XDP's alone"
    if level is Level.FAIL:
        assert found.mend == ('sed -i -e \'3s|"tc"|"auto"|\' /etc/x.toml',)


def test_a_name_reaches_no_shell_that_a_command_is_copied_into() -> None:
    its, name = facts(), "$(id);a"
    config = parse(TEXT.replace("wan0", name), "x")
    links = {name: replace(its.links["wan0"], name=name, flags=0)}
    ports = {name: its.ports["wan0"]._replace(rxvlan=True)}
    its = replace(its, config=config, links=links, ports=ports, table=build(config, links))
    mends = [mend for each in interface.checks(its) for mend in each.mend]
    assert mends == ["ip link set dev '$(id);a' up", "ethtool -K '$(id);a' rxvlan off"]


def test_a_unit_that_is_started_again_and_again_is_told() -> None:
    its = {"LoadState": "loaded", "ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"}
    found = of(unit.checks(replace(facts(), unit=Unit(its))), "unit")
    assert found.level is Level.FAIL
    assert "again and again" in found.message


def test_a_neighbour_table_that_is_nearly_full_is_told_with_what_makes_it_larger() -> None:
    assert of(routes.checks(replace(facts(), table_size=(383, (128, 512, 1024)))), "neighbour_table").level is Level.OK
    found = of(routes.checks(replace(facts(), table_size=(384, (128, 512, 1024)))), "neighbour_table")
    assert found.level is Level.WARN
    space = TableSpace(Limits().pending)
    space.sized(Limits().pending, 384, (128, 512, 1024), 0.0)
    space.refused(0.0)
    assert space.warnings(0.0)[0].endswith(f": {found.mend[0]}"), "the daemon and doctor say the same"


@pytest.mark.parametrize(
    ("distribution", "first"),
    [
        ("debian 12", "apt-get install linux-image-$(dpkg --print-architecture)"),
        ("debian 11", "apt-get install -t bullseye-backports linux-image-$(dpkg --print-architecture)"),
        ("debian", "apt-get install linux-image-$(dpkg --print-architecture)"),
        ("ubuntu 22.04", "apt-get install linux-generic-hwe-22.04"),
        ("ubuntu 24.04", "apt-get install linux-generic"),
        ("fedora 42", "dnf upgrade kernel"),
    ],
)
def test_a_kernel_that_is_too_old_is_told_with_what_this_distribution_has(distribution: str, first: str) -> None:
    its = replace(facts(), machine=WELL._replace(kernel="5.10.0-30", distribution=distribution))
    assert of(machine.checks(its), "kernel").mend == (first, "systemctl reboot")


def test_a_kernel_that_is_too_old_of_a_distribution_that_nobody_knows_is_told_with_what_to_do() -> None:
    its = replace(facts(), machine=WELL._replace(kernel="5.10.0-30", distribution="plan 9"))
    found = of(machine.checks(its), "kernel")
    assert found.mend == ()
    assert found.message.endswith("; install one, and boot it")


@pytest.mark.parametrize(
    ("distribution", "mend"),
    [("debian 12", "apt-get install python3-bpfcc"), ("fedora 42", "dnf install python3-bcc")],
)
def test_what_installs_bcc_is_of_the_distribution(distribution: str, mend: str) -> None:
    its = replace(facts(), machine=WELL._replace(bcc="", no_bcc="bcc is missing", distribution=distribution))
    assert of(machine.checks(its), "bcc").mend == (mend,)


def test_a_file_that_systemd_networkd_has_from_others_is_told_without_a_command() -> None:
    """It is netplan that writes it."""
    file = Path("/run/systemd/network/10-netplan-wan0.network")
    line = NetworkdLine(file, "IPv6ProxyNDP", "yes", "IPv6ProxyNDP=yes")
    first = next(others.checks(replace(facts(), networkd=[line])))
    assert (first.check, first.level, first.mend) == ("others", Level.NOTE, ())
    assert str(file) in first.message
    assert first.message.endswith("take that out where it comes from (netplan, say)")


def test_odhcpd_is_told_with_what_to_write() -> None:
    first = next(others.checks(replace(facts(), daemons=[Answerer("odhcpd", 7)])))
    assert (first.level, first.mend) == (Level.NOTE, ())
    assert "option ndp 'disabled'" in first.message


def test_text_and_json_say_the_same() -> None:
    found = [ok("kernel", "Linux"), warn("clock", "it is late", "date -s now", "hwclock -w")]
    assert findings_text(found).splitlines() == [
        "ok    kernel  Linux",
        "warn  clock   it is late",
        "              $ date -s now",
        "              $ hwclock -w",
        "",
        "2 checks: 1 warn",
    ]
    assert "\x1b[33mwarn\x1b[0m  clock" in findings_text(found, colours=True)
    assert findings_json(found)[1] == {
        "check": "clock",
        "level": "warn",
        "message": "it is late",
        "mend": ["date -s now", "hwclock -w"],
    }
    assert not is_failed(found)


def test_a_daemon_whose_kernel_may_not_proxy_is_told_what_is_off() -> None:
    its = facts()
    text = TEXT.replace("static", "kernel", 1)
    config = parse(text, "x")
    status = {"configuration": str(its.path), "reload_error": "", "last_reload": 1.0}
    sysctls = {"conf/wan0/proxy_ndp": "0", "conf/all/proxy_ndp": "1"}
    its = replace(its, config=config, table=build(config, its.links), status=status, sysctls=sysctls)
    found = of(kernel_proxy.checks(its), "proxy_ndp")
    assert (found.level, found.mend) == (Level.FAIL, ("sysctl -w net/ipv6/conf/wan0/proxy_ndp=1",))
    its = replace(its, sysctls=dict.fromkeys(sysctls, "1"))
    assert of(kernel_proxy.checks(its), "proxy_ndp").level is Level.OK


def test_where_no_host_is_known_it_says_how_one_is_asked() -> None:
    found = of(hosts.checks(facts()), "hosts")
    assert (found.level, "npd6-xdp doctor ADDRESS" in found.message) == (Level.OK, True), found
