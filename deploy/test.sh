#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then runs the linters, the types and all tests: three for each processor at a time, since most
# of them wait, and then one by one those that need the machine to themselves (tests/conftest.py), and at the end other
# kernels, under QEMU (docs/kernels.md). Arguments go to pytest, and then there are no other kernels; -n 0 runs all tests
# one by one.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
deploy/setup.sh --test

step() {
    echo "test: $*"
    "$@"
}
PATH="$PWD/.venv/bin:$PATH"
# Tests start hundreds of daemons and commands, each of which would compile all of the project's Python anew.
unset PYTHONDONTWRITEBYTECODE
step ruff check --quiet
step ruff format --check --quiet
step find bpf tests -name '*.[ch]' -exec clang-format --dry-run --Werror {} +
step mypy --no-error-summary
step shellcheck --external-sources deploy/*.sh deploy/*/*.sh deploy/systemd/{clean,next} .ci/run tests/kernels/init
workers=$((3 * $(nproc)))
[ $workers -le 8 ] || workers=8
beside=(-n "$workers" --dist worksteal)
if ! python -c 'import xdist' 2>/dev/null; then
    echo "test: pytest-xdist isn't installed in .venv: all tests run one by one"
    beside=()
fi
step python -m pytest "${beside[@]}" "$@"
# Behind the tests, not beside them: it takes both processors.
[ $# -gt 0 ] || step deploy/kernels.sh --ci
