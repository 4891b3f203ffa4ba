#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The router between the two, with npd6-xdp as a service: what docs/operation.md says of a clone, "As a service".
# shellcheck source=deploy/vagrant/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

# The service sees no home directories, and whose clone this is may keep it to himself: so a copy, for all to read.
home=/opt/npd6-xdp
mkdir -p $home
rm -rf $home/bpf $home/deploy $home/npd6_xdp
cp -r "$tree"/{bpf,deploy,npd6_xdp,LICENSE,README.md,pyproject.toml} $home
chmod -R u=rwX,go=rX $home/{bpf,deploy,npd6_xdp,LICENSE,README.md,pyproject.toml}
bash $home/deploy/setup.sh --lab

# accept_ra first: forwarding takes a default route away that the box has by router advertisements of its own network
put /etc/sysctl.d/50-npd6-xdp-lab.conf <<END
net.ipv6.conf.*.accept_ra = 2
net.ipv6.conf.all.forwarding = 1
END
install -m 644 $home/deploy/systemd/npd6-xdp.sysctl.conf /etc/sysctl.d/npd6-xdp.conf
systemctl restart systemd-sysctl
interface wan0 "$EDGE_WAN_MAC" <<END
[Network]
Address=$EDGE_WAN_ADDRESS/64
IPv6AcceptRA=no
END
interface lan0 "$EDGE_LAN_MAC" <<END
[Network]
Address=$EDGE_LAN_ADDRESS/64
IPv6AcceptRA=no
END
interface mgmt0 "$EDGE_MGMT_MAC" <<END
[Network]
Address=$EDGE_MGMT_ADDRESS/24
IPv6AcceptRA=no
END
networks wan0 lan0 mgmt0

ln -sfn $home/.venv/bin/npd6-xdp /usr/bin/npd6-xdp
install -D -m 644 $home/deploy/vagrant/npd6-xdp.toml /etc/npd6-xdp/npd6-xdp.toml
install -D -m 644 $home/deploy/systemd/npd6-xdp.sysusers.conf /etc/sysusers.d/npd6-xdp.conf
install -Dm 755 -t /usr/lib/npd6-xdp $home/deploy/systemd/next $home/deploy/systemd/clean
install -m 644 $home/deploy/systemd/npd6-xdp.service /etc/systemd/system/
npd6-xdp check --config /etc/npd6-xdp/npd6-xdp.toml
systemd-sysusers
systemctl daemon-reload
systemctl enable -q npd6-xdp
systemctl restart npd6-xdp
npd6-xdp status
