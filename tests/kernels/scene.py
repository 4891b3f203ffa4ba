# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scene is: devices and configuration first, questions when the daemon runs, and once more later."""

from __future__ import annotations

from tests.kernels.ground import Ground


class Scene:
    """A story of one kind of device. Its methods are called in the order in which they stand here.

    `kinds` are the kinds of devices without which it is no story at all; further ones it may do without.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def build(self) -> str:
        """Make the devices, and return the configuration that speaks for them."""
        raise NotImplementedError

    def check(self) -> None:
        """The daemon runs: ask, and have Ground.check() judge."""
        raise NotImplementedError

    def after_growth(self) -> None:
        """Another, larger program has taken over since check()."""
