#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing, then shows npd6-xdp at work on real traffic, in network namespaces of its own.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
deploy/setup.sh --lab
exec .venv/bin/npd6-xdp lab
