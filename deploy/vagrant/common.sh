# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the machines of the lab have in common; their scripts source it, as root, on Debian.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
tree="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
# shellcheck source=deploy/vagrant/topology.env
. "$tree/deploy/vagrant/topology.env"

say() { echo "$(basename "$0"): $*"; }
fail() { say "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "needs root: it sets up this very machine, which is to be one of the lab's"

# packages NAME...: installs those of Debian's packages that are missing.
packages() {
    local name missing=()
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# put FILE: standard input becomes that file, for all to read.
put() {
    install -D -m 644 /dev/stdin "$1"
}

# interface NAME MAC: the interface with that address gets that name, now and whenever the machine boots, and what
# standard input says of it to systemd-networkd. The name comes from here, since each hypervisor has names of its own.
interface() {
    local name=$1 mac=$2 found current
    put "/etc/systemd/network/50-$name.link" <<-END
		[Match]
		MACAddress=$mac

		[Link]
		Name=$name
	END
    { printf '[Match]\nName=%s\n\n' "$name" && cat; } | put "/etc/systemd/network/50-$name.network"
    found="$(grep -lixF "$mac" /sys/class/net/*/address)" || fail "no interface has the MAC address $mac: vagrant reload"
    current="$(basename "$(dirname "$found")")"
    if [ "$current" != "$name" ]; then
        say "$current is $name from now on"
        ip link set dev "$current" down
        ip link set dev "$current" name "$name"
    fi
}

# networks NAME...: has systemd-networkd take what the files say, and waits until these interfaces are up and addressed.
# It leaves all others alone, of which the first is Vagrant's.
networks() {
    systemctl enable -q --now systemd-networkd
    networkctl reload
    /lib/systemd/systemd-networkd-wait-online --timeout=30 "${@/#/--interface=}" ||
        fail "no address on one of $* after 30 s: networkctl status"
}
