#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what npd6-xdp needs: distribution packages, and the project in .venv. Run it as often as you like.
#   setup.sh [--lab] [--failover] [--test] [--bench]
# --lab: also what the lab needs; --failover: also what the lab with two edges needs; --test: also what the tests need (and
# both labs); --bench: also what the benchmark needs (and the tests)
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

extra="" lab=no failover=no
for argument in "$@"; do
    case $argument in
        --lab) lab=yes ;;
        --failover) lab=yes failover=yes ;;
        --test) lab=yes failover=yes extra="${extra:-[test]}" ;;
        --bench) lab=yes failover=yes extra="[bench]" ;;
        *) fail "unknown argument $argument; it takes --lab, --failover, --test and --bench" ;;
    esac
done

[ "$(id -u)" = 0 ] || fail "needs root, to install packages and to load XDP programs: run it as root, or by sudo"
# The first that has what the program calls; the oldest that is tested is 6.1.
printf '%s\n' 5.18 "$(uname -r)" | sort -VC || fail "Linux $(uname -r) is too old: npd6-xdp needs 5.18 or newer"

# The distribution's packages. bcc can come from nowhere else: PyPI's package of that name is another thing.
# shellcheck source=/dev/null
. /etc/os-release
case ${ID:-}-${VERSION_ID:-} in
    debian-12 | debian-13 | ubuntu-24.04)
        packages=(python3 python3-venv python3-bpfcc iproute2)
        [ $lab = no ] || packages+=(iputils-ping ndisc6 tcpdump)
        # Its service doesn't start: it waits for a configuration file, and the package brings none.
        [ $failover = no ] || packages+=(keepalived)
        # libstdc++6: ndppd's only need beyond libc; npd6 has none. systemd: its tools, and its manager in namespaces.
        [ -z "$extra" ] || packages+=(curl ethtool iptables libstdc++6 man-db mandoc nftables openssl shellcheck
            systemd zsh)
        # What reads the captures that trace writes.
        [ -z "$extra" ] || packages+=(tshark)
        # Somebody else's XDP program, which attach = "tc" sits beside.
        [ -z "$extra" ] || packages+=(xdp-tools)
        # What compiles the fuzzer's reference.
        [ -z "$extra" ] || packages+=(gcc libc6-dev)
        # What reads the Vagrantfile, for its tests. They are skipped elsewhere.
        [ -z "$extra" ] || [ "$ID-$VERSION_ID" != debian-12 ] || packages+=(vagrant)
        # The browser that the status page is tested in, and its picture's font; Ubuntu has the browser as a snap only, and
        # skips these tests.
        [ -z "$extra" ] || [ "$ID" = ubuntu ] || packages+=(chromium chromium-driver fonts-inter)
        # What the benchmark's --profile looks into the kernel with; Ubuntu has it for its own kernels only.
        [ "$extra" != "[bench]" ] || [ "$ID" = ubuntu ] || packages+=(linux-perf)
        # What the Debian package is built by, looked at by, and installed into: a root of debootstrap's.
        [ -z "$extra" ] || packages+=(debhelper dh-python pybuild-plugin-pyproject python3-setuptools python3-shtab
            lintian debootstrap)
        missing=()
        for package in "${packages[@]}"; do
            dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
        done
        if [ ${#missing[@]} -gt 0 ]; then
            say "installing ${missing[*]}"
            apt-get update -qq
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
        fi
        ;;
    *)
        missing=()
        wanted=(ip)
        [ $lab = no ] || wanted+=(ping ndisc6 tcpdump)
        [ $failover = no ] || wanted+=(keepalived)
        [ -z "$extra" ] || wanted+=(curl ethtool gcc ip6tables man mandoc nft openssl shellcheck systemd-analyze tshark xdp-filter zsh)
        for tool in "${wanted[@]}"; do
            command -v "$tool" >/dev/null || missing+=("$tool")
        done
        /usr/bin/python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
            missing+=("/usr/bin/python3 3.11 or newer with venv")
        /usr/bin/python3 -c 'import bcc; bcc.BPF' 2>/dev/null || missing+=("bcc for /usr/bin/python3")
        if [ ${#missing[@]} -gt 0 ]; then
            fail "${PRETTY_NAME:-this system} is not one that it can install packages on (Debian 12 and 13, Ubuntu 24.04).
Missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//'). Please install these, then run this again:
  Fedora:          python3 python3-bcc iproute iputils keepalived ndisc6 tcpdump curl ethtool gcc iptables-nft man-db mandoc
                   nftables openssl ShellCheck systemd wireshark-cli xdp-tools zsh
  Debian, Ubuntu:  python3-venv python3-bpfcc iproute2 iputils-ping keepalived ndisc6 tcpdump curl ethtool gcc iptables
                   libc6-dev man-db mandoc nftables openssl shellcheck systemd tshark xdp-tools zsh"
        fi
        ;;
esac

# The virtual environment: by the distribution's Python, whose site packages hold bcc.
python="$(/usr/bin/python3 --version)"
state="$PWD, $python, $(sha256sum <pyproject.toml)"
stamp=.venv/.npd6-xdp
if ! { [ -x .venv/bin/npd6-xdp ] && grep -qxF "${extra:-[base]} $state" $stamp; } 2>/dev/null; then
    say "installing npd6-xdp$extra in $PWD/.venv"
    if ! grep -q "^version = ${python#Python }" .venv/pyvenv.cfg 2>/dev/null ||
        ! grep -qx 'include-system-site-packages = true' .venv/pyvenv.cfg ||
        ! .venv/bin/pip --version >/dev/null 2>&1; then
        /usr/bin/python3 -m venv --clear --system-site-packages .venv
    fi
    .venv/bin/pip install -qq -e ".$extra"
    # With the tests' needs come the base's, and with the benchmark's the tests'.
    {
        echo "[base] $state"
        [ -z "$extra" ] || echo "[test] $state"
        [ "$extra" != "[bench]" ] || echo "[bench] $state"
    } >$stamp
fi

# The peers, and Prometheus, for the tests and the benchmark: unpacked, not installed, since installing would start them
# as daemons.
peers=.venv/peers
unpacked=(ndppd npd6 prometheus)
if [ -n "$extra" ] && ! grep -qxF "${unpacked[*]}" $peers/complete 2>/dev/null; then
    command -v apt-get >/dev/null || fail "the tests need files of Debian's packages ${unpacked[*]}: unpack these
(dpkg -x, or ar and tar) into $PWD/$peers, and write into the file $PWD/$peers/complete the line: ${unpacked[*]}"
    say "unpacking ${unpacked[*]} in $PWD/$peers"
    rm -rf $peers
    mkdir -p $peers/packages
    (cd $peers/packages && { apt-get download -qq "${unpacked[@]}" 2>/dev/null ||
        { apt-get update -qq && apt-get download -qq "${unpacked[@]}"; }; })
    # Debian 13 has Prometheus' tool in a package of its own.
    (cd $peers/packages && apt-get download -qq promtool 2>/dev/null) || true
    for package in "$peers"/packages/*.deb; do
        dpkg-deb -x "$package" $peers
    done
    rm -r $peers/packages
    echo "${unpacked[*]}" >$peers/complete
fi

# What says of the status page whether it can be used by keyboard and screen reader: a script that the tests' browser runs.
axe="axe-core@4.14.1"
if [ -n "$extra" ] && command -v chromium >/dev/null && ! grep -qxF $axe .venv/axe/complete 2>/dev/null; then
    if command -v npm >/dev/null; then
        say "fetching $axe in $PWD/.venv/axe"
        rm -rf .venv/axe
        mkdir -p .venv/axe
        npm install --silent --no-audit --no-fund --ignore-scripts --no-save --prefix .venv/axe $axe
        echo $axe >.venv/axe/complete
    else
        say "no npm here, which fetches $axe: the test that reads the status page with it is skipped"
    fi
fi

# What the dashboard is checked by: Grafana's types, and their compiler, as they are pinned.
pinned=tests/prometheus/schema grafana=.venv/grafana
if [ -n "$extra" ] && ! cmp -s $pinned/package-lock.json $grafana/complete; then
    if command -v npm >/dev/null; then
        say "installing @grafana/schema in $PWD/$grafana"
        rm -rf $grafana
        mkdir -p $grafana
        cp $pinned/package.json $pinned/package-lock.json $grafana
        npm ci --prefix $grafana --ignore-scripts --no-audit --no-fund --silent >/dev/null
        cp $pinned/package-lock.json $grafana/complete
    else
        say "npm isn't there: tests/prometheus/test_schema.py, which takes it, is skipped"
    fi
fi

# The root that the package is installed into: of the distributions that it is for.
case ${ID:-} in
    debian | ubuntu) [ -z "$extra" ] || ! command -v debootstrap >/dev/null || deploy/debian/root.sh .venv/root ;;
esac

# The kernels that the tests boot at their end, and what boots them.
[ -z "$extra" ] || deploy/kernels.sh --ci --fetch

.venv/bin/python -c 'import bcc; bcc.BPF' 2>/dev/null ||
    fail "bcc doesn't import in .venv: is the distribution's package (python3-bpfcc, python3-bcc) complete?"
