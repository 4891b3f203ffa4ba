#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then runs the linters, the types and all tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
deploy/setup.sh --test

step() {
    echo "test: $*"
    "$@"
}
PATH="$PWD/.venv/bin:$PATH"
step ruff check --quiet
step ruff format --check --quiet
step mypy --strict --no-error-summary npd6_xdp
step shellcheck --external-sources deploy/*.sh deploy/*/*.sh .ci/run
step python -m pytest "$@"
