#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The provider's router. It believes the hosts' prefix to be on its link, and so asks there for each address.
# shellcheck source=deploy/vagrant/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

packages iproute2 iputils-ping ndisc6 tcpdump
interface lab0 "$UPSTREAM_MAC" <<END
[Network]
Address=$UPSTREAM_ADDRESS/64
IPv6AcceptRA=no

[Route]
Destination=$HOST_PREFIX
END
networks lab0
