#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes the root that the tests' throwaway ones are laid over (tests/roots.py): this machine's release, as debootstrap
# makes it, from the mirror that apt uses here. Nothing is done while it is there and not older than a week.
#   root.sh DIRECTORY     makes DIRECTORY/base, and DIRECTORY/archives: the packages that all of the roots share
set -euo pipefail

say() { echo "root: $*"; }
fail() { echo "root: $*" >&2; exit 1; }

[ $# = 1 ] || fail "usage: $0 DIRECTORY"
[ "$(id -u)" = 0 ] || fail "needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
mkdir -p "$1"
cd "$1"
# Those of the tests, fetched before so that they take no time then, and need no network.
packages=(python3-bpfcc python3-prometheus-client python3-scapy systemd)
# What deploy/vagrant's scripts install, and what a box has.
packages+=(ca-certificates dbus iproute2 iputils-ping ndisc6 prometheus python3-venv sudo systemd-sysv tcpdump wget)

# shellcheck source=/dev/null
. /etc/os-release
case $ID in
    ubuntu) origin=Ubuntu ;;
    *) origin=Debian ;;
esac
# What apt knows, in the form of sources.list: "deb URI SUITE COMPONENT".
sources() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' "Origin: $origin" 'Target-Of: deb' | sort -u
}
lines="$(sources)"
[ -n "$lines" ] || { apt-get update -qq; lines="$(sources)"; }
mirror="$(awk -v suite="$VERSION_CODENAME" '$3 == suite && $4 == "main" { print $2; exit }' <<<"$lines")"
[ -n "$mirror" ] || fail "apt has no source of $VERSION_CODENAME's main here: apt-get update, or /etc/apt/sources.list"

state="$lines
${packages[*]}"
[ -z "$(find complete -mtime +6 2>/dev/null)" ] || rm complete
if [ "$(cat complete 2>/dev/null)" = "$state" ]; then
    exit
fi

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say "making $PWD/base of $PRETTY_NAME"
rm -rf base base.new complete
mkdir -p archives base.new
{
    echo 'Acquire::Languages "none";'
    apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until)' || true
} >apt.conf
echo "$lines" >sources.list

# In namespaces of its own, so that no mount and no process stays behind, not even where this is killed; and in memory,
# which takes half the time.
inside=$(cat <<'INSIDE'
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs base.new
debootstrap --variant=minbase --cache-dir="$PWD/archives" "$1" base.new/root "$2"
shift 2
cp sources.list base.new/root/etc/apt/sources.list
cp apt.conf base.new/root/etc/apt/apt.conf.d/90roots
cp -L /etc/resolv.conf base.new/root/etc/resolv.conf
mount -t proc proc base.new/root/proc
mount --bind archives base.new/root/var/cache/apt/archives
chroot base.new/root apt-get update -q
chroot base.new/root apt-get upgrade -qy -o Dpkg::Use-Pty=0
chroot base.new/root apt-get install -qy --download-only --no-install-recommends "$@"
cp -a --one-file-system base.new/root base
INSIDE
)
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
    bash -c "$inside" bash "$VERSION_CODENAME" "$mirror" "${packages[@]}" </dev/null >root.log 2>&1 ||
    fail "it can't be made, see $PWD/root.log"
rmdir base.new
echo "$state" >complete
