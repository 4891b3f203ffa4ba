#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Boots Debian's kernels under QEMU, without hardware virtualization, and runs tests/kernels there: docs/kernels.md.
#   kernels.sh [--scene NAME]... [KERNEL...]
#       --scene: only this one, as often as you like; without, all of them
#       KERNEL: a package of apt's, linux-image-...; without, what linux-image-amd64 depends on here
# Exit status: 0 if all checks held on all kernels and no kernel complained, 1 if not, 2 for wrong arguments.
# Nothing of the kernels is installed. The guest's root is an initramfs, with what the daemon takes from this machine.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
cache=$PWD/.venv/kernels
limit=${LIMIT:-1200} # seconds for one kernel
# A guest that gets no time of a busy machine would complain of that, too.
quiet="nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
kinds=(veth bonding 8021q vrf wireguard ipvlan macvlan bridge dummy tun team)
kinds+=(team_mode_activebackup team_mode_roundrobin)

say() { echo "kernels: $*"; }
fail() { echo "kernels: $*" >&2; exit 1; }
misused() { echo "kernels: $*" >&2; exit 2; }

scenes=() kernels=()
while [ $# -gt 0 ]; do
    case $1 in
        --scene)
            [ $# -gt 1 ] || misused "--scene takes the name of a scene"
            scenes+=("$2")
            shift
            ;;
        linux-image-*) kernels+=("$1") ;;
        *) misused "unknown argument $1; it takes --scene NAME, and packages of apt's, linux-image-..." ;;
    esac
    shift
done
[ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m), and it knows only how to boot a kernel for x86_64"
[ -x .venv/bin/npd6-xdp ] || deploy/setup.sh
# Wrong names are to be known before a kernel is fetched and booted.
.venv/bin/python -m tests.kernels --list "${scenes[@]}" >/dev/null || exit 2
command -v apt-get >/dev/null || fail "there is no apt here: it takes Debian's packages, on Debian or Ubuntu"
# apt takes a name that it doesn't know for a pattern, and fetches all that match.
known() { apt-cache pkgnames "$1" | grep -xF "$1" >/dev/null; }

apt-cache pkgnames linux-image | grep . >/dev/null || apt-get update -qq
[ ${#kernels[@]} -gt 0 ] || kernels=(linux-image-amd64)
for kernel in "${kernels[@]}"; do
    known "$kernel" || misused "$kernel: apt knows no such package; apt-cache pkgnames linux-image lists what it knows"
done

missing=()
for tool in qemu-system-x86_64:qemu-system-x86 depmod:kmod busybox:busybox-static; do
    command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
# Another busybox may be there, whose libraries the guest doesn't have.
! command -v busybox >/dev/null || ! ldd "$(command -v busybox)" >/dev/null 2>&1 || missing+=(busybox-static)
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "needs root, to install ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The packages of this name's kernel: itself, or what it depends on if it is there for that only; newer ones are split.
packages() {
    apt-cache depends --important "$1" |
        sed -nE 's/^ +Depends: (linux-(image|modules|binary)-[^ <>]*)$/\1/p' | sort -u
}

# Unpacks a kernel into the cache, and says where it is there.
fetch() {
    local image=$1 wanted package
    mapfile -t wanted < <(packages "$image")
    if [ ${#wanted[@]} = 1 ] && [[ ${wanted[0]} == linux-image-* ]]; then
        image=${wanted[0]}
        mapfile -t wanted < <(packages "$image")
    fi
    if [ ! -e "$cache/$image/complete" ]; then
        rm -rf "${cache:?}/$image"
        mkdir -p "$cache/$image/packages"
        for package in "$image" "${wanted[@]}"; do
            known "$package" || fail "$package, which $image depends on: apt knows no such package"
        done
        (cd "$cache/$image/packages" && { apt-get download -qq "$image" "${wanted[@]}" 2>/dev/null ||
            { apt-get update -qq && apt-get download -qq "$image" "${wanted[@]}"; }; }) >&2 ||
            fail "$image: apt can't fetch it"
        for package in "$cache/$image"/packages/*.deb; do
            dpkg-deb -x "$package" "$cache/$image"
        done
        rm -r "$cache/$image/packages"
        [ -d "$cache/$image/lib" ] || ln -s usr/lib "$cache/$image/lib" # where depmod and modprobe look
        depmod -b "$cache/$image" "$(release "$image")"
        touch "$cache/$image/complete"
    fi
    echo "$image"
}

# The release of an unpacked kernel, as uname has it.
release() {
    local found=("$cache/$1"/{usr/,}lib/modules/*/kernel)
    for path in "${found[@]}"; do
        [ ! -d "$path" ] || { basename "$(dirname "$path")"; return; }
    done
    fail "$1 holds no kernel"
}

# --- the guest's root ---------------------------------------------------------------------------

# A program or library, with the libraries that it is linked with, under their own names.
linked() {
    local file
    for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$file")"
        cp -nL "$file" "$root$file"
    done
}

# All but the kernel's modules: Python with bcc and prometheus_client, ip(8), busybox, and the project.
lay_out() {
    local python version module library
    mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,npd6-xdp/tests} "$root"/usr/{bin,lib,lib64,sbin}
    for library in lib lib64 sbin; do
        ln -s "usr/$library" "$root/$library"
    done
    cp "$(command -v busybox)" "$root/bin/"
    linked "$(command -v ip)"
    python="$(readlink -f .venv/bin/python)"
    linked "$python"
    [ "$python" = /usr/bin/python3 ] || ln -s "$(basename "$python")" "$root/usr/bin/python3"
    version="$(basename "$python")"
    mkdir -p "$root/usr/lib/python3/dist-packages"
    cp -r "/usr/lib/$version" "$root/usr/lib/"
    rm -rf "$root/usr/lib/$version"/{test,idlelib,tkinter,lib2to3,ensurepip,pydoc_data,config-*}
    for library in "$root/usr/lib/$version"/lib-dynload/*.so; do
        linked "${library#"$root"}"
    done
    for module in bcc prometheus_client; do
        cp -r "$(.venv/bin/python -c "import $module; print(*$module.__path__)")" "$root/usr/lib/python3/dist-packages/"
    done
    # What bcc opens by name.
    for library in libbcc.so.0 librt.so.1; do
        linked "$(ldconfig -p | awk -v name=$library '$1 == name && /x86-64/ { print $NF; exit }')"
    done
    cp -r npd6_xdp bpf "$root/npd6-xdp/"
    cp -r tests/kernels tests/recipes.py "$root/npd6-xdp/tests/"
    mkdir "$root/npd6-xdp/docs"
    cp -r docs/recipes "$root/npd6-xdp/docs/"
    # Compiled here, since a Python that is emulated takes seconds for it at each start; unchecked, for the files' times
    # are lost on the way.
    find "$root" -name __pycache__ -prune -exec rm -r {} +
    .venv/bin/python -m compileall -q -j 0 -s "$root" --invalidation-mode unchecked-hash "$root/npd6-xdp" "$root/usr/lib"
    cp tests/kernels/init "$root/init"
}

# The modules of a kernel that scenes need, and in which order they go in. What it hasn't, the scenes will say.
modules() {
    local directory=$root/modules file kind
    mkdir "$directory"
    for kind in "${kinds[@]}"; do
        modprobe -d "$cache/$1" -S "$2" --show-depends "$kind" 2>/dev/null | awk '/^insmod/ { print $2 }'
    done | awk '!seen[$0]++' | while read -r file; do
        case $file in
            *.xz) xz -dc "$file" ;;
            *.zst) zstd -dcq "$file" ;;
            *) cat "$file" ;;
        esac >"$directory/$(basename "${file%.*}" .ko).ko"
        echo "$(basename "${file%.*}" .ko).ko" >>"$directory/order"
    done
}

archive() { (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null); }

# --- boot ---------------------------------------------------------------------------------------

# Runs the scenes on a kernel; its exit status is theirs. Both processors are one thread's work: with a thread for each,
# one can still run what the other has just patched in the kernel's code, and dies of it (6.12, "Oops: int3" at boot).
boot() {
    local image=$1 log=$cache/$1.log began=$SECONDS vmlinuz
    vmlinuz="$(find "$cache/$image" -name 'vmlinuz*' -type f -print -quit)"
    timeout --foreground "$limit" qemu-system-x86_64 -machine q35 -accel tcg,thread=single,tb-size=1024 -cpu qemu64 \
        -smp 2 -m 2048 -nodefaults -display none -net none -no-reboot -serial stdio \
        -kernel "$vmlinuz" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off $quiet -- ${scenes[*]}" </dev/null 2>&1 |
        sed -u 's|\r$||' | tee "$log" || true
    if ! grep -q '^kernels: exit status [0-9]' "$log"; then
        say "$image: FAILED: no end within $limit s, or the kernel died; see $log"
        return 1
    fi
    if grep -q '^complaint: ' "$log"; then
        say "$image: FAILED: the kernel complains; see $log"
        return 1
    fi
    if ! grep -qx 'kernels: exit status 0' "$log"; then
        say "$image: FAILED after $((SECONDS - began)) s; see $log"
        return 1
    fi
    say "$image: all checks held, in $((SECONDS - began)) s"
}

work="$(mktemp -d "${TMPDIR:-/tmp}/npd6-kernels.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache"
images=()
for kernel in "${kernels[@]}"; do
    images+=("$(fetch "$kernel")")
done
root=$work/root
lay_out
archive "$root" >"$work/base"
status=0
for image in "${images[@]}"; do
    root=$work/$image
    mkdir "$root"
    modules "$image" "$(release "$image")"
    # An initramfs may be several archives, one behind the other.
    { cat "$work/base"; archive "$root"; } >"$work/initrd"
    boot "$image" || status=1
done
exit $status
