#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then measures npd6-xdp, its peers and the kernel, in network namespaces of its own.
#   bench.sh [--quick] [--rows 1,4,5] [--compare FILE] [--output DIR]     see docs/benchmark.md
#   bench.sh --profile [--output DIR]                                     where the time goes
set -euo pipefail
home="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
"$home/deploy/setup.sh" --bench
# As in a package that is installed: no start is to compile the Python that was changed since the last one.
unset PYTHONDONTWRITEBYTECODE
"$home/.venv/bin/python" -m compileall -q "$home/npd6_xdp"
PYTHONPATH="$home" exec "$home/.venv/bin/python" -m tests.bench "$@"
