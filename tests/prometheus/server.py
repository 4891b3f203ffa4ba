# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus in the edge's namespace, with the project's own configuration and rules, in a hurry."""

from __future__ import annotations

import http.client
import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from npd6_xdp.lab.topology import Topology
from tests.netns.wire import until
from tests.prometheus.files import BINARIES, PROMETHEUS

HURRY = (
    (r"(scrape|evaluation)_interval: \w+", r"\1_interval: 500ms"),
    (r"\[\d+m\]", "[5s]"),
    (r"offset 1m", "offset 2s"),
    (r"for: \d+[ms]", "for: 1s"),
)
"""What a copy of the files has instead, so that minutes become seconds."""
EACH_SECOND = ((r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s"),)
"""The same where nothing but how often it looks is to be another."""


class Prometheus:
    """Scrapes and evaluates while the `with` block runs.

    `beside` are files to be put beside the configuration, by their names there. With some, what the configuration has
    as a comment for TLS and a password holds, too, and `more` below its tls_config. `instead` are pairs of a pattern
    and what the copy has in its place.
    """

    def __init__(
        self,
        topology: Topology,
        beside: Mapping[str, Path] | None = None,
        more: str = "",
        instead: Sequence[tuple[str, str]] = HURRY,
    ) -> None:
        self._beside = beside or {}
        self._more = more
        self._instead = instead
        self._topology = topology
        self._home = topology.directory / "prometheus"
        self._log = topology.directory / "prometheus.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        shutil.copytree(PROMETHEUS, self._home)
        for file in self._home.rglob("*.yml"):
            text = file.read_text()
            for pattern, instead in self._instead:
                text = re.sub(pattern, instead, text)
            if file.name == "prometheus.yml" and self._beside:
                text, count = re.subn(r"^    # (?!Where)", "    ", text, flags=re.MULTILINE)
                assert count == 6
                text = text.replace("    tls_config:\n", f"    tls_config:\n{self._more}")
            file.write_text(text)
        for name, path in self._beside.items():
            shutil.copy(path, self._home / name)
        with self._log.open("w") as log:
            self._process = self._topology.popen(
                "edge",
                str(BINARIES / "prometheus"),
                f"--config.file={self._home / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._home / 'data'}",
                "--web.listen-address=[::1]:9090",
                stdout=log,
                stderr=log,
            )
        assert until(self._ready, 10.0), self.log
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An expression's series at this moment, each with its labels and its value."""
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def found(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Those series once there are some: there are none while the last scrape was too slow for the half second."""
        series: list[tuple[dict[str, str], float]] = []

        def there() -> bool:
            series[:] = self.query(expression)
            return bool(series)

        until(there, 15.0)
        return series

    def numbers(self, expression: str) -> list[float]:
        """The values of an expression's series, those left out that are none."""
        return [value for _, value in self.query(expression) if math.isfinite(value)]

    def answer(self, expression: str, at: float) -> list[dict[str, Any]]:
        """An expression's series at a time (seconds since 1970), as the API has them: `metric` and `value`."""
        found: list[dict[str, Any]] = self._get("query", query=expression, time=f"{at:.3f}")["result"]
        return found

    def answer_over(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The same from one time to another, each `step` seconds: `metric` and `values`."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        found: list[dict[str, Any]] = self._get("query_range", query=expression, **span)["result"]
        return found

    def label_values(self, label: str, of: str) -> list[str]:
        """What label_values(of, label) offers in Grafana."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": of})
        return found

    def firing(self) -> set[str]:
        """The alerts that are firing, but for one about the neighbour table: a scan fills it, and others do."""
        found = [each for each in self._get("alerts")["alerts"] if each["labels"].get("kind") != "neighbour_table"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def alerts(self) -> set[str]:
        """The alerts that are firing, or will be if it stays so."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"]}

    def last_scrape(self) -> tuple[str, str]:
        """When the one target was scraped last, and what was wrong then; that there is none yet is wrong, too."""
        for target in self._get("targets")["activeTargets"]:
            return target["lastScrape"], target["lastError"]
        return "", "no target yet"

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            return self._fetch("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _get(self, what: str, **parameters: str) -> Any:
        status, body = self._fetch(f"/api/v1/{what}?{urlencode(parameters)}")
        assert status == http.client.OK, (what, parameters, body)
        return json.loads(body)["data"]

    def _fetch(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("::1", 9090, timeout=20.0)
        try:
            with self._topology.inside("edge"):
                connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
