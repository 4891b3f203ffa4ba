#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then runs frames from a seed through the loaded XDP program, and compares all that becomes of
# them with a plain reference: docs/fuzz.md.
#   fuzz.sh [--frames N | --seconds T] [--seed S] [--configuration NAME]...     the program; 1,000,000 frames by default
#   fuzz.sh --tc ...                             the same, by its function for tc, with most tags beside the frames
#   fuzz.sh --mutants [NAME...] [--seed S]       whether faults that are put into the program are found
#   fuzz.sh --parsers [SECONDS] [--seed S]       Python's parsers of bytes, instead
# Exit status: 0 if there is no difference, or each fault is found, 1 if not, 2 for wrong arguments.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
has_all() { command -v gcc && .venv/bin/python -c 'import npd6_xdp, hypothesis'; }
has_all >/dev/null 2>&1 || deploy/setup.sh --test
exec .venv/bin/python -m tests.fuzz "$@"
