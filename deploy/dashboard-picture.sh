#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then draws docs/dashboard.png: the dashboard's panels by Grafana's components, in Chromium, from
# what a real Prometheus answers after some minutes with a real daemon. Not Grafana, and so an approximation.
#   dashboard-picture.sh [--seconds 330] [--output docs/dashboard.png] [--keep DIRECTORY]
# Takes 460 MB in .venv/picture, by npm. Exit status: 0, or 1 if a panel is empty or isn't drawn well, which it says.
set -euo pipefail
home="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
"$home/deploy/setup.sh" --test
fail() { echo "dashboard-picture: $*" >&2; exit 1; }
for tool in npm chromium chromedriver; do
    command -v $tool >/dev/null || fail "$tool isn't installed, which it takes"
done

# Grafana's components and what bundles them, as they are pinned. No test takes them, so deploy/setup.sh has no part in it.
pinned=$home/tests/prometheus/picture installed=$home/.venv/picture
if ! cmp -s "$pinned/package-lock.json" "$installed/complete"; then
    echo "dashboard-picture: installing @grafana/ui in $installed"
    rm -rf "$installed"
    mkdir -p "$installed"
    cp "$pinned/package.json" "$pinned/package-lock.json" "$installed"
    npm ci --prefix "$installed" --ignore-scripts --no-audit --no-fund --silent >/dev/null
    cp "$pinned/package-lock.json" "$installed/complete"
fi
PYTHONPATH="$home" exec "$home/.venv/bin/python" -m tests.prometheus.picture "$@"
