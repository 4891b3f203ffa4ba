#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A host behind the edge.
# shellcheck source=deploy/vagrant/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

packages iproute2 iputils-ping tcpdump
# Not a default route: this machine's way into the Internet is Vagrant's, also over IPv6.
interface lab0 "$HOST_MAC" <<END
[Network]
Address=$HOST_ADDRESS/64
IPv6AcceptRA=no

[Route]
Destination=$LINK_PREFIX
Gateway=$EDGE_LAN_ADDRESS
END
networks lab0
