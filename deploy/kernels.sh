#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Boots Debian's kernels under QEMU and runs tests/kernels there: docs/kernels.md.
#   kernels.sh [--scene NAME]... [--suite NAME]... [--tcg] [KERNEL...]
#       --scene: only this one, as often as you like; without, all but those that must be named
#       --suite: one of Debian's, whose kernels are to be had besides this machine's: trixie-backports, sid, ...
#       --tcg: emulate the processor, also where hardware virtualization works
#       KERNEL: a package of apt's, linux-image-...; without, what linux-image-amd64 depends on here
#   kernels.sh --ci [--fetch] [--tcg]
#       the oldest and the newest kernel that apt knows here, side by side, by the scenes that CI runs
#       --fetch: only get ready for that: tools and kernels
# Exit status: 0 if all checks held on all kernels and no kernel complained, 1 if not, 2 for wrong arguments.
# Nothing of the kernels is installed. The guest's root is an initramfs, with what the daemon takes from this machine.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
. deploy/debian/apart.sh
export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
cache=${CACHE:-$PWD/.venv/kernels}
limit=${LIMIT:-2400} # seconds for one kernel; MANY and GROWTH are how many VLANs and rules the scenes of that name have
# Those that take devices which many machines lack, and what each kernel must do.
ci=(smoke bond team vlan-device vlan-trace vrf tunnels wireguard stations anchors tc)
# A guest that gets no time of a busy machine would complain of that, too.
# Nor is a timer broken that was late while the kernel waited for it at boot.
quiet="nowatchdog rcupdate.rcu_cpu_stall_suppress=1 no_timer_check sysctl.kernel.hung_task_timeout_secs=0"
kinds=(veth bonding 8021q vrf wireguard ipvlan macvlan bridge dummy tun team)
kinds+=(team_mode_activebackup team_mode_roundrobin)
kinds+=(virtio_pci virtio_net e1000 e1000e igb vmxnet3 8139cp) # cards, for the scene `drivers`

say() { echo "kernels: $*"; }
fail() { echo "kernels: $*" >&2; exit 1; }
misused() { echo "kernels: $*" >&2; exit 2; }

scenes=() kernels=() suites=() in_ci=no only_fetch=no emulate=no
while [ $# -gt 0 ]; do
    case $1 in
        --scene)
            [ $# -gt 1 ] || misused "--scene takes the name of a scene"
            scenes+=("$2")
            shift
            ;;
        --suite)
            [ $# -gt 1 ] || misused "--suite takes the name of one of Debian's suites"
            suites+=("$2")
            shift
            ;;
        --ci) in_ci=yes ;;
        --fetch) only_fetch=yes ;;
        --tcg) emulate=yes ;;
        linux-image-*) kernels+=("$1") ;;
        -h | --help)
            sed -n '3,/^set /{/^#/s/^# \{0,1\}//p}' deploy/kernels.sh
            exit
            ;;
        *) misused "unknown argument $1; it takes --scene NAME, and packages of apt's, linux-image-...; --help says more" ;;
    esac
    shift
done
[ $in_ci = no ] || [ ${#scenes[@]}${#kernels[@]}${#suites[@]} = 000 ] ||
    misused "--ci has scenes and kernels of its own"
[ $in_ci = yes ] || [ $only_fetch = no ] || misused "--fetch goes with --ci"
[ $in_ci = no ] || scenes=("${ci[@]}")
if [ $in_ci = yes ] && ! { [ "$(uname -m)" = x86_64 ] && grep -qx 'ID=debian' /etc/os-release; }; then
    say "left out: these are Debian's kernels, for x86_64, and this is another machine"
    exit
fi
[ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m), and it knows only how to boot a kernel for x86_64"
[ -x .venv/bin/npd6-xdp ] || deploy/setup.sh
# Wrong names are to be known before a kernel is fetched and booted.
.venv/bin/python -m tests.kernels --list "${scenes[@]}" >/dev/null || exit 2
command -v apt-get >/dev/null || fail "there is no apt here: it takes Debian's packages, on Debian or Ubuntu"

# apt takes a name that it doesn't know for a pattern, and fetches all that match.
known() { apt-cache pkgnames "$1" | grep -xF "$1" >/dev/null; }
newest() { apt-cache pkgnames linux-image | grep -E '^linux-image-[0-9.]+(\+deb[0-9.]+)?(-[0-9]+)?-amd64$' | sort -V | tail -n 1; }

apt-cache pkgnames linux-image | grep . >/dev/null || apt-get update -qq

missing=()
tools=(qemu-system-x86_64:qemu-system-x86 depmod:kmod busybox:busybox-static wg:wireguard-tools)
[[ " ${scenes[*]} " != *" dispatcher "* ]] || tools+=(xdp-loader:xdp-tools)
for tool in "${tools[@]}"; do
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

mkdir -p "$cache"
# Further suites are known to an apt of their own.
[ ${#suites[@]} = 0 ] || apart "$cache/apt" amd64 "${suites[@]}" || exit 1
[ $in_ci = no ] || kernels=(linux-image-amd64 newest)
[ ${#kernels[@]} -gt 0 ] || kernels=(linux-image-amd64)
for kernel in "${kernels[@]}"; do
    [ "$kernel" = newest ] || known "$kernel" ||
        misused "$kernel: apt knows no such package; apt-cache pkgnames linux-image lists what it knows"
done

# The packages of this name's kernel: itself, or what it depends on if it is there for that only; newer ones are split.
packages() {
    apt-cache depends --important "$1" |
        sed -nE 's/^ +Depends: (linux-(image|modules|binary|base)-[^ <>]*)$/\1/p' | sort -u
}

# The packages that hold a kernel, the image first.
holding() {
    local image=$1 wanted
    [ "$image" != newest ] || image="$(newest)"
    mapfile -t wanted < <(packages "$image")
    if [ ${#wanted[@]} = 1 ] && [[ ${wanted[0]} == linux-image-* ]]; then
        image=${wanted[0]}
        mapfile -t wanted < <(packages "$image")
    fi
    printf '%s\n' "$image" "${wanted[@]}"
}

# Unpacks a kernel into the cache, and says where it is there.
fetch() {
    local try wanted package directory
    for try in 1 2 3; do
        # With new lists another package may be what is meant, and the one before gone.
        [ "$try" = 1 ] || { sleep $((${PAUSE:-10} * (try - 1))) && apt-get update -qq >&2; } || continue
        mapfile -t wanted < <(holding "$1")
        directory=$cache/${wanted[0]}
        [ ! -e "$directory/complete" ] || { echo "${wanted[0]}"; return; }
        for package in "${wanted[@]}"; do
            known "$package" || fail "$package, which $1 depends on: apt knows no such package"
        done
        rm -rf "$directory"
        mkdir -p "$directory/packages"
        say "fetching ${wanted[*]}" >&2
        if (cd "$directory/packages" && apt-get download -qq "${wanted[@]}") >"$cache/fetch.log" 2>&1; then
            for package in "$directory"/packages/*.deb; do
                dpkg-deb -x "$package" "$directory"
            done
            rm -r "$directory/packages"
            [ -d "$directory/lib" ] || ln -s usr/lib "$directory/lib" # where depmod and modprobe look
            depmod -b "$directory" "$(release "${wanted[0]}")"
            touch "$directory/complete"
            echo "${wanted[0]}"
            return
        fi
    done
    cat "$cache/fetch.log" >&2
    fail "$1: apt can't fetch it, not in three attempts"
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
    linked "$(command -v wg)"
    linked "$(command -v ethtool)"
    linked "$(command -v setpriv)"
    if [[ " ${scenes[*]} " == *" dispatcher "* ]]; then
        linked "$(command -v xdp-filter)"
        linked "$(command -v xdp-loader)"
        mkdir -p "$root/usr/lib/x86_64-linux-gnu/bpf"
        cp /usr/lib/x86_64-linux-gnu/bpf/xdp*.o "$root/usr/lib/x86_64-linux-gnu/bpf/"
    fi
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
        { modprobe -d "$cache/$1" -S "$2" --show-depends "$kind" 2>/dev/null || true; } | awk '/^insmod/ { print $2 }'
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

# Whether this machine's processor runs a guest: what /dev/kvm promises it needn't keep, in a virtual machine.
virtualizes() {
    [ $emulate = no ] && [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo || return
    # Without a root, a kernel ends in a panic within a second or two.
    timeout 20 qemu-system-x86_64 -machine q35 -accel kvm -cpu host -m 512 -nodefaults -display none -net none -no-reboot \
        -serial stdio -kernel "$1" -append "console=ttyS0 quiet panic=-1" </dev/null 2>/dev/null | grep -q 'Kernel panic'
}

# What the scenes `drivers` and `doctor` look at: pairs of cards, each pair on a hub as if on a cable. docs/kernels.md has the rest.
cards() {
    local known number=0 card
    known="$(qemu-system-x86_64 -device help)"
    for card in virtio-net-pci e1000 e1000e igb vmxnet3 rtl8139 virtio-net-pci virtio-net-pci; do
        grep -q "^name \"$card\"" <<<"$known" || continue
        number=$((number + 1))
        printf ' -netdev hubport,id=e%d,hubid=%d -device %s,netdev=e%d,mac=02:00:00:d0:%02x:0e' $number $number $card \
            $number $number
        printf ' -netdev hubport,id=a%d,hubid=%d -device virtio-net-pci,netdev=a%d,mac=02:00:00:d0:%02x:0a' $number \
            $number $number $number
    done
    echo
}

# Runs the scenes on a kernel; its exit status is theirs. Descriptor 3 has a line for each that begins. What ended before
# they began, emulated on a busy machine, is booted once more. Both processors are one thread's work: with a thread for each,
# one can still run what the other has just patched in the kernel's code, and dies of it (6.12, "Oops: int3" at boot).
boot() {
    local image=$1 log=$work/$1.log began=$SECONDS vmlinuz hardware=() processor
    processor=(-accel "tcg,thread=single,tb-size=1024" -cpu qemu64)
    vmlinuz="$(kernel "$image")"
    [ "$accelerated" = no ] || processor=(-accel kvm -cpu host)
    [[ ! " ${scenes[*]} " =~ " "(doctor|drivers)" " ]] || read -ra hardware < <(cards)
    for _ in 1 2; do
        # However this ends, the guest does, too.
        setpriv --pdeathsig TERM timeout --kill-after=10 --foreground "$limit" qemu-system-x86_64 -machine q35 \
            "${processor[@]}" -smp 2 -m 2048 -nodefaults -display none -net none "${hardware[@]}" -no-reboot \
            -serial stdio -kernel "$vmlinuz" -initrd "$work/$image.initrd" \
            -append "console=ttyS0 quiet panic=-1 mitigations=off $quiet${MANY:+ MANY=$MANY}${GROWTH:+ GROWTH=$GROWTH} -- ${scenes[*]}" </dev/null 2>&1 |
            grep --line-buffered -v 'is not connected to host network' | sed -u 's|\r$||' |
            tee "$log" >(sed -un "s|^begins  |kernels: $image: |p" >&3) || true
        ! grep -q '^Linux ' "$log" || break
    done
    cp "$log" "$cache/"
    if ! grep -q '^kernels: exit status [0-9]' "$log"; then
        say "$image: FAILED: no end within $limit s, or the kernel died; see $cache/$image.log"
        return 1
    fi
    if grep -q '^complaint: ' "$log"; then
        say "$image: FAILED: the kernel complains; see $cache/$image.log"
        return 1
    fi
    if ! grep -qx 'kernels: exit status 0' "$log"; then
        say "$image: FAILED after $((SECONDS - began)) s; see $cache/$image.log"
        return 1
    fi
    say "$image: all $(grep -c '^ok ' "$log") checks held, in $((SECONDS - began)) s"
}

# Where a kernel's image is in the cache.
kernel() { find "$cache/$1" -name 'vmlinuz*' -type f -print -quit; }

# Runs the scenes on some kernels, side by side where there is memory for it: a guest has one thread. Meanwhile it says what
# begins where, and afterwards how each ended; of one that failed all that it printed. Status 1 if one did.
side_by_side() {
    local available image number failed=0
    available=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
    say "booting $*, with ${scenes[*]}"
    for image in "$@"; do
        boot "$image" 3>&1 >"$work/$image.out" 2>&1 &
        running+=($!)
        [ "$available" -ge 8 ] || wait $! || true
    done
    for number in "${!running[@]}"; do
        image=${*:number + 1:1}
        if wait "${running[number]}"; then
            tail -n 1 "$work/$image.out"
        else
            failed=1
            cat "$work/$image.out"
        fi
    done
    running=()
    return $failed
}

images=()
for kernel in "${kernels[@]}"; do
    images+=("$(fetch "$kernel")")
done
[ $only_fetch = no ] || exit 0
mapfile -t images < <(printf '%s\n' "${images[@]}" | awk '!seen[$0]++')

# What a run left behind that was killed goes first.
for left in "${TMPDIR:-/tmp}"/npd6-kernels.*.*; do
    owner=${left%.*}
    [ ! -d "$left" ] || kill -0 "${owner##*.}" 2>/dev/null || rm -rf "$left"
done
work="$(mktemp -d "${TMPDIR:-/tmp}/npd6-kernels.$$.XXXXXX")"
running=()
# shellcheck disable=SC2317 # the trap calls it
leave() {
    [ ${#running[@]} = 0 ] || kill "${running[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$work/root
lay_out
archive "$root" >"$work/base"
rm -r "$root"
for image in "${images[@]}"; do
    root=$work/$image
    mkdir "$root"
    modules "$image" "$(release "$image")"
    # An initramfs may be several archives, one behind the other.
    { cat "$work/base"; archive "$root"; } >"$work/$image.initrd"
done
accelerated=no
! virtualizes "$(kernel "${images[0]}")" || accelerated=yes

status=0
if [ $in_ci = no ]; then
    for image in "${images[@]}"; do
        boot "$image" 3>/dev/null & # so that a signal is heard meanwhile
        running=($!)
        wait $! || status=1
    done
    running=()
    exit $status
fi
side_by_side "${images[@]}"
