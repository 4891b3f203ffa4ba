#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then has one of two edges take over from the other, by a real keepalived, in network
# namespaces of its own, and measures for how long whom the upstream doesn't reach. See docs/failover.md.
#   failover.sh [--hosts N] [--method route|static|neighbour]     without: 1000 of them, and route
# Exit status: 0 if all held, 1 if not, 2 for wrong arguments.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
deploy/setup.sh --failover
exec .venv/bin/npd6-xdp lab --failover "$@"
