#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs this tree's checks and tests on another release of Debian, with its bcc, its Python and its tools, on this
# machine's kernel: in a root of debootstrap's, which stays in .venv/releases/RELEASE for the next time (rm -r it).
#   suite.sh RELEASE [ARGUMENT...]     suite.sh trixie tests/core: arguments are deploy/test.sh's
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

say() { echo "suite: $*"; }
fail() { echo "suite: $*" >&2; exit 1; }

[ $# -gt 0 ] || fail "usage: $0 RELEASE [ARGUMENT...]"
[ "$(id -u)" = 0 ] || fail "needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
release=$1 root=.venv/releases/$1
shift
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# In namespaces of its own, so that no mount and no process stays behind, not even where this is killed.
apart() { setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$@"; }

if ! [ -e "$root/etc/debian_version" ] || [ -e "$root/debootstrap" ]; then
    # shellcheck disable=SC2016 # apt's own variables
    mirror="$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        awk '$2 == "main" { print $1; exit }')"
    [ -n "$mirror" ] || fail "apt knows no mirror of Debian's here: apt-get update"
    say "making $root from $mirror"
    rm -rf "$root"
    mkdir -p "$root"
    apart debootstrap --variant=minbase "$release" "$root" "$mirror" >"$root.log" 2>&1 || fail "see $root.log"
fi

# This tree as it is now, the set-up of the last time kept.
home=$root/npd6-xdp
mkdir -p "$home"
find "$home" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -r {} +
git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -c | tar -C "$home" -x

inside=$(cat <<'INSIDE'
set -e
mount --bind "$1" "$1" # a mount of its own, as the tests' namespaces want their root to be
cd "$1"
mount --rbind /dev dev
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock /run/lock
mount --bind /run/lock run/lock # all on this kernel share its neighbour table, and by these locks the tests take turns
cp -L /etc/resolv.conf etc/resolv.conf
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -e "$certificates" ]; then # whom this machine trusts, pip is to trust in there, whatever a package writes there
    mkdir -p etc/ssl
    cp -L "$certificates" etc/ssl/of-the-machine.crt
    export PIP_CERT=/etc/ssl/of-the-machine.crt SSL_CERT_FILE=/etc/ssl/of-the-machine.crt
fi
shift
pivot_root . .
umount -l .
cd /
dpkg --configure -a >/dev/null # what a run that was killed has left half done
exec /npd6-xdp/deploy/test.sh "$@"
INSIDE
)
apart bash -c "$inside" bash "$root" "$@"
