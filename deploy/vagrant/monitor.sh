#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Prometheus with the project's rules, which scrapes the edge; and what Grafana will find. grafana.sh installs that.
# shellcheck source=deploy/vagrant/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

packages iproute2 prometheus
interface mgmt0 "$MONITOR_MGMT_MAC" <<END
[Network]
Address=$MONITOR_MGMT_ADDRESS/24
IPv6AcceptRA=no
END
networks mgmt0

install -D -m 644 "$tree/deploy/prometheus/rules/npd6-xdp.rules.yml" /etc/prometheus/rules/npd6-xdp.rules.yml
sed "s/\[::1\]:9846/$EDGE_MGMT_ADDRESS:9846/" "$tree/deploy/prometheus/prometheus.yml" | put /etc/prometheus/prometheus.yml
grep -qF "\"$EDGE_MGMT_ADDRESS:9846\"" /etc/prometheus/prometheus.yml ||
    fail "deploy/prometheus/prometheus.yml has no target [::1]:9846 to replace by the edge's"
promtool check config /etc/prometheus/prometheus.yml
systemctl enable -q prometheus
systemctl restart prometheus

install -d /etc/grafana
cp -r "$tree/deploy/grafana/provisioning" /etc/grafana/
install -D -m 644 "$tree/deploy/grafana/npd6-xdp.json" /var/lib/grafana/dashboards/npd6-xdp.json
# Whoever reaches this network may look, without a password; only admin may change something.
put /etc/systemd/system/grafana-server.service.d/npd6-xdp.conf <<'END'
[Service]
Environment=GF_AUTH_ANONYMOUS_ENABLED=true
Environment=GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=/var/lib/grafana/dashboards/npd6-xdp.json
END
