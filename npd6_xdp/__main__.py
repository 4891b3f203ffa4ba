# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m npd6_xdp`: the same as the command npd6-xdp."""

import sys

from npd6_xdp.cli import main

sys.exit(main())
