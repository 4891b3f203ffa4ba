# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus scrapes the real daemon by TLS, with a password and a certificate; without, it gets nothing."""

from __future__ import annotations

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.certificates import CLIENTS, PASSWORD, self_signed, signed, web_config
from tests.netns.wire import configuration, until
from tests.prometheus.server import Prometheus

USER = "prometheus"  # as deploy/prometheus/prometheus.yml has it
CERTIFICATE = "      cert_file: client.crt\n      key_file: client.key\n"


def test_prometheus_scrapes_by_tls_with_a_password_and_a_certificate(topology: Topology) -> None:
    where = topology.directory
    self_signed(where, "server", "IP:::1")
    self_signed(where, "ca")
    signed(where, "client", "ca")
    web = web_config(where, users=(USER,))
    (where / "password").write_text(PASSWORD)
    config = f'[metrics]\nlisten = ["[::1]:9846", "127.0.0.1:9846"]\nweb_config = "{web}"\n{configuration()}'
    beside = {
        "npd6-xdp.crt": where / "server.crt",
        "npd6-xdp.password": where / "password",
        "client.crt": where / "client.crt",
        "client.key": where / "client.key",
    }
    with RunningDaemon(topology, config) as running, Prometheus(topology, beside, CERTIFICATE) as prometheus:

        def ends_with(error: str) -> bool:
            """Whether a scrape from now on ends so; one that took longer than the half second comes again."""
            before = prometheus.last_scrape()[0]

            def ended() -> bool:
                when, said = prometheus.last_scrape()
                return when != before and (error in said if error else not said)

            return until(ended, 20.0)

        def reload() -> None:
            assert running.command("reload").returncode == 0

        assert ends_with(""), prometheus.log
        assert prometheus.found('npd6_interface_up{interface="wan0"} == 1')
        web_config(where, CLIENTS, users=(USER,))
        reload()
        assert ends_with(""), "it has a certificate"
        web_config(where, CLIENTS, users=("somebody",))
        reload()
        assert ends_with("401 Unauthorized"), "its user is gone"
        web_config(where, CLIENTS, users=(USER,))
        reload()
        assert ends_with("")
        self_signed(where, "ca")
        reload()
        assert ends_with("tls: "), "another CA than the one that has signed its certificate"
        web_config(where, users=(USER,))
        self_signed(where, "server", "IP:::1")
        reload()
        assert ends_with("x509: "), "another certificate than the one that it knows"
