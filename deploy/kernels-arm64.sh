#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Boots Debian's kernel for arm64 under QEMU, with a root of Debian's packages for arm64, and runs tests/kernels there:
# docs/kernels.md. All of it is emulated, so it takes minutes.
#   kernels-arm64.sh [SCENE...]     without, smoke
# Exit status: 0 if all checks held and the kernel didn't complain, 1 if not, 2 for wrong arguments.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
. deploy/debian/apart.sh
export DEBIAN_FRONTEND=noninteractive
cache=${CACHE:-$PWD/.venv/kernels/arm64}
limit=${LIMIT:-3600} # seconds
# What the guest's root is made of, with all that these depend on. None of their scripts is run: they need none.
wanted=(python3-bpfcc python3-prometheus-client iproute2 busybox-static kmod wireguard-tools linux-image-arm64)
kinds=(veth bonding 8021q vrf wireguard ipvlan macvlan bridge dummy tun team team_mode_activebackup team_mode_roundrobin)

say() { echo "kernels-arm64: $*"; }
fail() { echo "kernels-arm64: $*" >&2; exit 1; }

case ${1-} in
    -h | --help)
        sed -n '3,/^set /{/^#/s/^# \{0,1\}//p}' deploy/kernels-arm64.sh
        exit
        ;;
    -*) echo "kernels-arm64: unknown argument $1; it takes names of scenes" >&2; exit 2 ;;
esac
[ $# -gt 0 ] || set -- smoke
[ -x .venv/bin/npd6-xdp ] || deploy/setup.sh
.venv/bin/python -m tests.kernels --list "$@" >/dev/null || exit 2
missing=()
for tool in qemu-system-aarch64:qemu-system-arm depmod:kmod busybox:busybox-static; do
    command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "needs root, to install ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# All of it from an apt that believes to be on an arm64 machine on which nothing is installed.
if [ ! -e "$cache/complete" ]; then
    # shellcheck source=/dev/null
    suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
    rm -rf "$cache/root"
    mkdir -p "$cache/root"
    say "fetching ${wanted[*]}, for arm64"
    apart "$cache/apt" arm64 "$suite" || exit 1
    apt-get install -y -qq --no-install-recommends --download-only "${wanted[@]}" >"$cache/log" ||
        fail "apt can't fetch them: $cache/log"
    for package in "$cache"/apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$cache/root"
    done
    touch "$cache/complete"
fi

work="$(mktemp -d "${TMPDIR:-/tmp}/npd6-arm64.XXXXXX")"
trap 'rm -rf "$work"' EXIT
release="$(basename "$cache"/root/{,usr/}lib/modules/6*)"
depmod -b "$cache/root" "$release"
# The kernel's own files and the compilers' documentation have no business in the guest's memory.
root=$work/root
mkdir "$root"
(cd "$cache/root" && find . -path ./boot -prune -o -path "*/lib/modules" -prune -o -path ./usr/share -prune -o -print |
    busybox cpio -o -H newc 2>/dev/null) | (cd "$root" && busybox cpio -idm 2>/dev/null)
mkdir -p "$root"/{dev,proc,run,sys,tmp,modules,npd6-xdp/tests,npd6-xdp/docs}
for kind in "${kinds[@]}"; do
    { modprobe -d "$cache/root" -S "$release" --show-depends "$kind" 2>/dev/null || true; } | awk '/^insmod/ { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    case $file in
        *.xz) xz -dc "$file" ;;
        *) cat "$file" ;;
    esac >"$root/modules/$(basename "${file%.xz}")"
    basename "${file%.xz}" >>"$root/modules/order"
done
cp -r npd6_xdp bpf "$root/npd6-xdp/"
cp -r tests/kernels tests/recipes.py "$root/npd6-xdp/tests/"
cp -r docs/recipes "$root/npd6-xdp/docs/"
cp tests/kernels/init "$root/init"
find "$root" -name __pycache__ -prune -exec rm -r {} +
# Bytecode is the same on all processors, and of this version of Python.
python="$(basename "$(readlink -f .venv/bin/python)")"
[ ! -d "$root/usr/lib/$python" ] ||
    .venv/bin/python -m compileall -q -j 0 -s "$root" --invalidation-mode unchecked-hash "$root/npd6-xdp" "$root/usr/lib" || true
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"

log=$work/log
qemu=(-machine virt -cpu "${CPU:-max}" -accel "tcg,tb-size=1024" -smp 2 -m 3072 -nodefaults -display none -net none)
timeout --foreground "$limit" qemu-system-aarch64 "${qemu[@]}" -no-reboot -serial stdio \
    -kernel "$(find "$cache/root/boot" -name 'vmlinuz*' -print -quit)" -initrd "$work/initrd" \
    -append "console=ttyAMA0 quiet panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 sysctl.kernel.hung_task_timeout_secs=0 -- $*" </dev/null 2>&1 |
    sed -u 's|\r$||' | tee "$log" || true
cp "$log" "$cache/last.log"
! grep -q '^complaint: ' "$log" || fail "the kernel complains: $cache/last.log"
grep -qx 'kernels: exit status 0' "$log" || fail "FAILED: $cache/last.log"
say "all $(grep -c '^ok ' "$log") checks held"
