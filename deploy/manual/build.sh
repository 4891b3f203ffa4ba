#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Writes the man pages and the shells' completions, from the code, below a directory: build.sh OUTDIR
#   It needs shtab (Debian's python3-shtab) for $PYTHON, which is .venv's where there is one, else python3. Dates are
#   those of SOURCE_DATE_EPOCH, if it is set.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out="$(cd "$1" && pwd)"
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=.venv/bin/python
    "$python" -c 'import shtab' 2>/dev/null || python=python3
fi
"$python" -c 'import shtab' || {
    echo "$0: $python has no shtab: install python3-shtab, or run deploy/setup.sh --test" >&2
    exit 1
}
exec "$python" -m docs.manual "$out"
