#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The lab as four virtual machines, shown at work. Runs where Vagrant runs, as whoever runs it; docs/vagrant.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deploy/vagrant/topology.env
. deploy/vagrant/topology.env

fail() { echo "demo: $*" >&2; exit 1; }
step() { printf '\n── %s\n' "$*"; }

# on MACHINE COMMAND: runs it there.
on() { vagrant ssh "$1" -c "$2" -- -T </dev/null; }

# show MACHINE COMMAND: the same, with the command and what it prints to read.
show() {
    printf '\n  %s# %s\n' "$1" "$2"
    on "$1" "$2" | sed 's/^/    /'
}

# The upstream may remember an answer.
forget() { on upstream 'sudo ip -6 neigh flush dev lab0'; }

command -v vagrant >/dev/null || fail "needs Vagrant, and VirtualBox or libvirt with vagrant-libvirt: docs/vagrant.md"
step "Four machines: upstream, edge, host, monitor"
vagrant up

step "Without npd6-xdp, the upstream doesn't find the host"
show edge 'sudo systemctl stop npd6-xdp'
forget
if show upstream "ping -n -c 1 -W 5 $HOST_ADDRESS"; then
    on edge 'sudo systemctl start npd6-xdp'
    fail "the host answered, though npd6-xdp was stopped: what else answers for it on edge? (ip -6 neigh show proxy)"
fi

step "With it, it does"
show edge 'sudo systemctl start npd6-xdp'
# Twice: at first the edge may have to look for the host, which Python does; then XDP answers.
for _ in 1 2; do
    forget
    show upstream "ping -n -c 3 -i 0.2 -W 5 $HOST_ADDRESS" ||
        fail "no answer; the edge's log has more: vagrant ssh edge -c 'sudo journalctl -u npd6-xdp'"
done
show upstream 'ip -6 neigh show dev lab0'
show edge 'sudo npd6-xdp status'

step "What Prometheus has of it, within 30 s"
query='sum by (outcome) (npd6_solicitations_total) > 0'
ask="promtool query instant http://localhost:9090 '$query'"
for _ in {1..30}; do # a scrape may have come between the two pings
    counted="$(on monitor "$ask")" && [[ $counted == *answered_xdp* ]] && break
    sleep 1
done
[ -n "$counted" ] || fail "Prometheus has no counts from edge: look at http://$MONITOR_MGMT_ADDRESS:9090/targets"
show monitor "$ask"

step "To look at, from this machine"
cat <<END
  http://$EDGE_MGMT_ADDRESS:9846/   the edge's status page
  http://$MONITOR_MGMT_ADDRESS:9090/alerts   Prometheus
  http://$MONITOR_MGMT_ADDRESS:3000/   Grafana: opens with the dashboard, and needs no password to look

  vagrant ssh upstream -c 'ping -c3 $HOST_ADDRESS'
  vagrant ssh edge -c 'sudo npd6-xdp status --watch'
  vagrant destroy -f
END
