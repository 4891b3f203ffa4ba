# SPDX-License-Identifier: GPL-2.0-or-later
"""The provisioning scripts, run for real, each on a machine of its own that has nothing but what debootstrap leaves.

Of grafana.sh only the beginning can be: its vendor's repository is out of reach. One test for all, since the machines
take long to provision, and tests that run side by side would do it twice.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, EDGE_WAN_MAC, HOST_ADDRESS
from tests.netns.wire import until
from tests.prometheus.files import GRAFANA, alerts
from tests.roots import PROJECT, ROOTS, Root
from tests.vagrant.machines import NAT_ADDRESS, Lab, lab

EDGE_METRICS = "192.168.56.62:9846"


def test_the_scripts_make_the_lab_of_four_bare_machines(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not (ROOTS / "complete").exists() or shutil.which("vagrant") is None:
        pytest.skip("takes root, and the base root and Vagrant of deploy/setup.sh --test (Debian 12)")
    with lab() as machines:
        for name, said in machines.provision().items():
            print(f"--- {name}\n{said}")
        the_demonstration_shows_what_it_says(machines, tmp_path)
        all_that_is_started_will_be_at_the_next_boot(machines)
        the_interface_of_vagrants_own_is_left_alone(machines)
        the_metrics_are_to_be_had_on_the_management_network_only(machines)
        prometheus_scrapes_the_edge_has_all_rules_and_nothing_to_tell(machines)
        what_grafana_is_to_find_is_there_and_leads_to_prometheus(machines)
        without_a_way_to_grafana_its_script_says_so_and_leaves_nothing(machines)
        provisioning_once_more_changes_nothing(machines)


def fetch(machine: Root, url: str) -> str:
    """What is at an HTTP address, as seen from a machine."""
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
    words = ["nsenter", f"--target={machine.init}", "--net", sys.executable, "-c", script, url]
    without_proxies = {"PATH": os.environ["PATH"]}
    return subprocess.run(words, env=without_proxies, stdout=subprocess.PIPE, text=True, check=True).stdout


def files(machine: Root) -> str:
    """What provisioning may have changed, each file with its contents' sum."""
    script = """
        find /etc /opt/npd6-xdp /usr/bin /var/lib/grafana -name __pycache__ -prune -o -printf '%p %M %u %l\n' | sort
        find /etc /opt/npd6-xdp /var/lib/grafana -name __pycache__ -prune -o -type f -exec md5sum {} + | sort
    """
    return machine.run("bash", "-c", script).stdout


def the_demonstration_shows_what_it_says(machines: Lab, tmp_path: Path) -> None:
    machines.vagrant(tmp_path / "vagrant")
    done = subprocess.run(
        [PROJECT / "deploy/vagrant/demo.sh"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said
    assert re.findall(r"(\d) packets transmitted, (\d) received", said) == [("1", "0"), ("3", "3"), ("3", "3")]
    assert re.search(rf"^    {HOST_ADDRESS} lladdr {EDGE_WAN_MAC} router ", said, re.MULTILINE), said
    assert "wan0: attached at tc ingress, datapath hybrid, up" in said
    assert re.search(r'^    \{outcome="answered_xdp"\} => [1-9]', said, re.MULTILINE), said


def all_that_is_started_will_be_at_the_next_boot(machines: Lab) -> None:
    units = {
        "edge": ["npd6-xdp", "systemd-networkd"],
        "host": ["systemd-networkd"],
        "monitor": ["prometheus", "systemd-networkd"],
        "upstream": ["systemd-networkd"],
    }
    for name, root in machines.roots.items():
        for question, answer in (("is-active", "active"), ("is-enabled", "enabled")):
            assert root.systemctl(question, *units[name]).split() == [answer] * len(units[name]), name
        assert root.systemctl("list-units", "--failed", "--plain", "--no-legend") == "", name


def the_interface_of_vagrants_own_is_left_alone(machines: Lab) -> None:
    for root in machines.roots.values():
        (link,) = json.loads(root.run("ip", "-json", "-4", "address", "show", "dev", "eth0").stdout)
        (address,) = link["addr_info"]
        assert f"{address['local']}/{address['prefixlen']}" == NAT_ADDRESS
        assert link["operstate"] == "UP"


def the_metrics_are_to_be_had_on_the_management_network_only(machines: Lab) -> None:
    edge, monitor, upstream = (machines.roots[name] for name in ("edge", "monitor", "upstream"))
    assert "npd6_build_info" in fetch(monitor, f"http://{EDGE_METRICS}/metrics")
    assert "<html" in fetch(monitor, f"http://{EDGE_METRICS}/")
    listening = edge.run("ss", "-Hltn", "sport", "=", ":9846").stdout.split()
    assert listening[3] == EDGE_METRICS
    assert upstream.run("ping", "-c", "1", EDGE_WAN_ADDRESS).returncode == 0
    assert upstream.run("bash", "-c", f"exec 3<>/dev/tcp/{EDGE_WAN_ADDRESS}/9846", check=False).returncode != 0


def prometheus_scrapes_the_edge_has_all_rules_and_nothing_to_tell(machines: Lab) -> None:
    monitor = machines.roots["monitor"]

    def states() -> dict[str, str]:
        groups = json.loads(fetch(monitor, "http://localhost:9090/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}

    assert set(states()) == set(alerts())
    # Prometheus may have looked at them for the first time before it had scraped anything
    assert until(lambda: "firing" not in states().values(), 60.0), states()
    found = json.loads(fetch(monitor, "http://localhost:9090/api/v1/query?query=up"))["data"]["result"]
    # The package's own configuration, which was in use for a moment, has another job.
    (up,) = [series for series in found if series["metric"]["job"] == "npd6-xdp"]
    assert up["metric"]["instance"] == EDGE_METRICS
    assert up["value"][1] == "1"


def what_grafana_is_to_find_is_there_and_leads_to_prometheus(machines: Lab) -> None:
    monitor = machines.roots["monitor"]
    provisioning = monitor.path / "etc/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/npd6-xdp.yml").read_text())["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    assert "npd6_build_info" in fetch(monitor, f"{source['url']}/api/v1/label/__name__/values")
    (provider,) = yaml.safe_load((provisioning / "dashboards/npd6-xdp.yml").read_text())["providers"]
    (dashboard,) = monitor.run("find", provider["options"]["path"], "-name", "*.json").stdout.split()
    assert (monitor.path / dashboard.lstrip("/")).read_bytes() == (GRAFANA / "npd6-xdp.json").read_bytes()
    drop_in = (monitor.path / "etc/systemd/system/grafana-server.service.d/npd6-xdp.conf").read_text()
    assert f"GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH={dashboard}\n" in drop_in


def without_a_way_to_grafana_its_script_says_so_and_leaves_nothing(machines: Lab) -> None:
    monitor = machines.roots["monitor"]
    done = monitor.run("/vagrant/deploy/vagrant/grafana.sh", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("grafana.sh: can't fetch https://apt.grafana.com/gpg.key: ")
    assert monitor.run("find", "/etc/apt", "-name", "*grafana*").stdout == ""


def provisioning_once_more_changes_nothing(machines: Lab) -> None:
    before = {name: files(root) for name, root in machines.roots.items()}
    for name, said in machines.provision().items():
        assert "installing" not in said, name
    assert {name: files(root) for name, root in machines.roots.items()} == before
    assert machines.roots["upstream"].run("ping", "-c", "1", "-W", "5", HOST_ADDRESS).returncode == 0
