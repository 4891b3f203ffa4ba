#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then soaks npd6-xdp: solicitations of all kinds, while the machine changes. See docs/soak.md.
#   soak.sh [--solicitations N | --minutes M] [--seed SEED] [--output DIR]     without: 100,000,000 of them
# Exit status: 0 if each was counted once and nothing grew, 1 if not, 2 for wrong arguments.
set -euo pipefail
home="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
"$home/deploy/setup.sh" --test
PYTHONPATH="$home" exec "$home/.venv/bin/python" -m tests.soak "$@"
