#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Grafana, of its vendor's apt repository: Debian 12 has no package of it. What it shows, monitor.sh has put in place.
# shellcheck source=deploy/vagrant/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

packages ca-certificates wget
url=https://apt.grafana.com key=/etc/apt/keyrings/grafana.asc
if ! [ -s $key ]; then
    found="$(wget -qO- $url/gpg.key)" || fail "can't fetch $url/gpg.key: is there a way into the Internet? Prometheus is there"
    put $key <<<"$found"
fi
put /etc/apt/sources.list.d/grafana.list <<<"deb [signed-by=$key] $url stable main"
packages grafana
systemctl daemon-reload
systemctl enable -q grafana-server
systemctl restart grafana-server
