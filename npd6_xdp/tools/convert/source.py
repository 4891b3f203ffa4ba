# SPDX-License-Identifier: GPL-2.0-or-later
"""An ndppd.conf as the daemon's configuration: converted at the start, and again at each reload."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.config import Config, Remark
from npd6_xdp.core.config_file import parse
from npd6_xdp.tools.convert import convert_ndppd
from npd6_xdp.tools.convert.machine import facts
from npd6_xdp.tools.files import read_text


class NdppdFile(NamedTuple):
    """The file, by what is known of this machine's interfaces when it is read."""

    path: Path

    def load(self, before: Config | None = None) -> Config:
        """What it says now. Its `remarks` say what of it is different here. Raises ConfigError."""
        converted = convert_ndppd(read_text(self.path), str(self.path), facts())
        said = [Remark(text, lost=False) for text in converted.remarks if text not in converted.losses]
        remarks = (*said, *(Remark(text, lost=True) for text in converted.losses))
        if converted.idle:
            return Config((), remarks=remarks)
        return replace(parse(converted.toml, f"{self.path}, converted", before), remarks=remarks)
