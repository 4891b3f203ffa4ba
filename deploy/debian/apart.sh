# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# To be sourced: an apt of its own, which asks this machine's mirror of Debian for other suites, or another architecture.

# The mirror that apt uses here for a suite of Debian's.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v suite="$1" '$1 == suite { print $2; exit }'
}

# apart DIRECTORY ARCHITECTURE SUITE...: from here on, apt knows these suites and works in DIRECTORY; this machine's lists
# stay as they are. For another architecture it believes that nothing is installed. Fails if there is no mirror to ask.
apart() {
    local directory=$1 architecture=$2 release mirror suite
    shift 2
    # shellcheck source=/dev/null
    release="$(. /etc/os-release && echo "$VERSION_CODENAME")"
    mirror="$(debian_mirror "$release")"
    [ -n "$mirror" ] || { echo "apt has no source of Debian's here, so there is no mirror to ask" >&2; return 1; }
    rm -rf "$directory"
    mkdir -p "$directory"/{lists/partial,cache/archives/partial}
    for suite in "$@"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$directory/sources.list"
    {
        echo "Dir::State \"$directory\";"
        echo "Dir::State::lists \"$directory/lists\";"
        echo "Dir::Cache \"$directory/cache\";"
        echo "Dir::Etc::SourceList \"$directory/sources.list\";"
        echo 'Dir::Etc::SourceParts "/dev/null";'
        echo 'Dir::Etc::PreferencesParts "/dev/null";'
        echo 'Acquire::Languages "none";'
        if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
            : >"$directory/status"
            echo "Dir::State::status \"$directory/status\";"
            echo "APT::Architecture \"$architecture\";"
            echo "APT::Architectures \"$architecture\";"
        fi
    } >"$directory/conf"
    APT_CONFIG=$directory/conf apt-get update -qq || { echo "apt can't fetch the lists of $*" >&2; return 1; }
    export APT_CONFIG=$directory/conf
}
