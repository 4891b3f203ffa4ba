#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Builds the Debian package, npd6-xdp_VERSION_all.deb, out of what is in this directory tree.
#   build.sh [--source] [OUTDIR]     into OUTDIR, else into dist/; --source: the source package instead (.dsc, .tar.xz)
# The version is the program's (npd6_xdp/__init__.py). DEBFULLNAME and DEBEMAIL name the maintainer, if they are set.
set -euo pipefail

say() { echo "package: $*"; }
fail() { echo "package: $*" >&2; exit 1; }

kind=binary
if [ "${1:-}" = --source ]; then
    kind=source
    shift
fi
[ $# -le 1 ] || fail "usage: $0 [--source] [OUTDIR]"
project="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
out="$(realpath --canonicalize-missing "${1:-$project/dist}")"
cd "$project"
command -v dpkg >/dev/null || fail "it is built on Debian and Ubuntu; on others: python -m build"
# The distribution's Python, whatever else is on the PATH.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

version="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' npd6_xdp/__init__.py)"
# 1.0rc1 comes before 1.0, and so does 1.0~rc1.
version="$(sed -E 's/\.?(a|b|rc|dev)([0-9]+)$/~\1\2/' <<<"$version")"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -c safe.directory="$project" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

# A relative one leads astray from where the tools are, and pybuild takes no space in it.
[[ ${TMPDIR:-/tmp} =~ ^/[^[:space:]]*$ ]] || unset TMPDIR
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
tree="$work/npd6-xdp-$version"
mkdir "$tree"
tar --create --exclude=__pycache__ bpf npd6_xdp deploy docs pyproject.toml README.md CHANGELOG.md LICENSE |
    tar --extract --no-same-owner --directory="$tree"
cp -r deploy/debian/debian "$tree/debian"
cp deploy/systemd/npd6-xdp.service "$tree/debian/npd6-xdp.service"
cp deploy/systemd/npd6-xdp.sysusers.conf "$tree/debian/npd6-xdp.sysusers"
if [ -n "${DEBEMAIL:-}" ]; then
    maintainer="${DEBFULLNAME:-npd6-xdp maintainers} <$DEBEMAIL>" \
        awk '/^Maintainer:/ { $0 = "Maintainer: " ENVIRON["maintainer"] } { print }' \
        deploy/debian/debian/control >"$tree/debian/control"
fi
cat >"$tree/debian/changelog" <<CHANGELOG
npd6-xdp ($version) unstable; urgency=medium

  * What has changed is in CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' "$tree/debian/control")  $(date -uR -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
cd "$tree"

# What it needs, of debian/control, as names for apt-get.
lacking() {
    command -v dpkg-checkbuilddeps >/dev/null || { echo build-essential; return; }
    { dpkg-checkbuilddeps 2>&1 || true; } | sed -En 's/ \([^)]*\)//g; s/:(any|native)//g; s/.*[Uu]nmet build dependencies: //p'
}
while lacks="$(lacking)" && [ -n "$lacks" ]; do
    [ "$(id -u)" = 0 ] || fail "as root, first: apt-get install $lacks"
    [ "$lacks" != "${installed:-}" ] || fail "this release has these too old, or not at all: $lacks"
    installed="$lacks"
    say "installing $lacks"
    read -ra names <<<"$lacks"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${names[@]}" >/dev/null
done

say "building version $version"
dpkg-buildpackage --build="$kind" --no-sign >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    fail "dpkg-buildpackage failed"
}
mkdir -p "$out"
case $kind in
    binary) made=("$work/npd6-xdp_${version}_all.deb") ;;
    source) made=("$work/npd6-xdp_$version".{dsc,tar.xz} "$work/npd6-xdp_${version}_source".{buildinfo,changes}) ;;
esac
cp "${made[@]}" "$out/"
say "$out/$(basename "${made[0]}")"
