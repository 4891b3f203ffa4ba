# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS and passwords of a real daemon: over reloads, and while somebody tries passwords as fast as he can."""

from __future__ import annotations

import base64
import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from tests.certificates import PASSWORD, self_signed, web_config
from tests.netns.browser import CHROMIUM, browser
from tests.netns.service import UnderSystemd
from tests.netns.verb import verb
from tests.netns.wire import configuration, flood, scan, until

Start = Callable[..., RunningDaemon]


def secured(topology: Topology, *rules: str, **keys: str) -> str:
    return f'[metrics]\nweb_config = "{topology.directory / "web.yml"}"\n{configuration(*rules, **keys)}'


def curl(topology: Topology, *words: str, path: str = "/healthz", scheme: str = "https") -> str:
    """What is answered on the edge, or what keeps it from being."""
    given = ("curl", "-sS", "--max-time", "60", "--cacert", str(topology.directory / "server.crt"), *words)
    done = topology.run("edge", *given, f"{scheme}://[::1]:9846{path}")
    return (done.stdout or done.stderr).strip()


KNOWN = ("-u", f"alice:{PASSWORD}")
PROMPT = 0.02  # seconds, one of npd6_answer_seconds' bounds
NOT_RELOADED = "degraded: 1 problem\nthe last reload failed; the configuration before it is in use"


def test_a_reload_reads_certificates_and_users_anew_or_leaves_all_as_it_was(topology: Topology, daemon: Start) -> None:
    where = topology.directory
    self_signed(where, "server", "IP:::1")
    web = web_config(where)
    running = daemon(configuration())
    assert curl(topology, scheme="http") == "ok"
    running.write(secured(topology))
    assert verb(running, "reload").returncode == 0
    assert curl(topology) == "Say a user's name and password."
    assert curl(topology, *KNOWN) == "ok"
    assert 'npd6_interface_up{interface="wan0"} 1.0' in curl(topology, *KNOWN, path="/metrics")
    assert curl(topology, scheme="http") == "This is served by TLS: ask by https://."
    old = shutil.copy(where / "server.crt", where / "old.crt")
    self_signed(where, "server", "IP:::1")
    assert "certificate" in curl(topology, *KNOWN), "the one that was there before"
    assert verb(running, "reload").returncode == 0
    assert curl(topology, *KNOWN) == "ok"
    assert "certificate" in curl(topology, *KNOWN, "--cacert", str(old))
    web_config(where, users=("bob",))
    text = web.read_text()
    web.write_text(text.replace("key_file", "kee_file"))
    done = verb(running, "reload")
    assert done.returncode != 0
    assert f'{web}:3:3: tls_server_config.kee_file: unknown key "kee_file"; did you mean "key_file"?' in done.stderr
    assert f"{web}:1:1: tls_server_config.key_file: missing" in done.stderr
    web.write_text(text)
    (where / "server.key").rename(where / "elsewhere.key")
    done = verb(running, "reload")
    place = f"{web}:3:3: tls_server_config.key_file"
    assert done.stderr.startswith(f"npd6-xdp: the old configuration stays: {place}: {where}/server.key: can't read it")
    assert curl(topology, *KNOWN) == NOT_RELOADED, "all else is as it was"
    (where / "elsewhere.key").rename(where / "server.key")
    assert verb(running, "reload").returncode == 0
    assert curl(topology, *KNOWN) == "Say a user's name and password."
    running.write(configuration())
    assert verb(running, "reload").returncode == 0
    assert curl(topology, scheme="http") == "ok"


def test_a_certificate_that_ends_soon_is_warned_of_until_another_one_is_read(topology: Topology, daemon: Start) -> None:
    where = topology.directory
    self_signed(where, "server", "IP:::1", days=10)
    web_config(where, users=())
    text = secured(topology)
    running = daemon(text)
    said = f"the TLS certificate {where}/server.crt: it ends at 20"
    assert until(lambda: f"npd6-xdp: warning: {said}" in running.log)
    told = verb(running, "status").stdout
    assert told.startswith(f"degraded: 1 problem\n  {said}")
    assert told.splitlines()[1].endswith("; renew it, then npd6-xdp reload")
    assert 'npd6_warnings{kind="certificate"} 1.0' in curl(topology, path="/metrics")
    assert f"npd6-xdp: warning: {said}" in running.command("check", "--config", str(running.config_file)).stderr
    self_signed(where, "server", "IP:::1")
    assert verb(running, "reload").stderr == ""
    assert verb(running, "status").stdout.startswith("working\n")
    assert curl(topology) == "ok"
    assert until(lambda: "cleared: it ends at" in running.log)


def test_check_and_a_start_refuse_what_cant_be_used(topology: Topology, daemon: Start) -> None:
    where = topology.directory
    web = where / "web.yml"
    config = where / "checked.toml"
    config.write_text(secured(topology))

    def check() -> tuple[int, str]:
        done = topology.run("edge", *RunningDaemon(topology, "")._program, "check", "--config", str(config))
        return done.returncode, done.stderr

    for content, why, exit_status in (
        (None, f"{web}: can't read it: No such file or directory", 2),
        ("tls_server_config:\n  cert: |\n    x\n", f"{web}:2:3: tls_server_config.cert: npd6-xdp doesn't take it", 2),
        ("a: [", f"{web}:1:5: not valid YAML", 2),
        (web_config(where).read_text(), f"{web}:2:3: tls_server_config.cert_file: {where}/server.crt: can't read", 1),
    ):
        web.unlink(missing_ok=True) if content is None else web.write_text(content)
        status, said = check()
        assert (status, said[: len(why) + 10]) == (2, f"npd6-xdp: {why}")
        with pytest.raises(StartError, match=f"exit status {exit_status}") as caught:
            daemon(config.read_text())
        assert f"npd6-xdp: {why}" in caught.value.log
    self_signed(where, "server", "IP:::1")
    assert check()[0] == 0


def test_within_the_units_sandbox_a_key_of_roots_is_refused_with_the_mend_and_then_serves(topology: Topology) -> None:
    where = topology.directory
    self_signed(where, "server", "IP:::1")
    web_config(where, cost=10)
    key = where / "server.key"
    assert key.stat().st_mode & 0o777 == 0o600, "as openssl makes it"
    with UnderSystemd(topology, configuration()) as service:
        service.configure(f'[metrics]\nweb_config = "/run/lab/web.yml"\n{configuration()}')
        assert service.reload().returncode == 1
        place = "/run/lab/web.yml:3:3: tls_server_config.key_file: /run/lab/server.key"
        mend = "chgrp npd6-xdp /run/lab/server.key && chmod 640 /run/lab/server.key"
        refused = f"{place}: can't read it: Permission denied; let the user npd6-xdp read it: {mend}"
        assert until(lambda: f"reload: {refused}\n" in service.log)
        assert curl(topology, scheme="http") == NOT_RELOADED
        assert service.enter("sh", "-c", mend).returncode == 0
        assert service.reload().returncode == 0
        assert curl(topology) == "Say a user's name and password."
        assert curl(topology, *KNOWN) == "ok"
        assert service.systemctl("restart", "npd6-xdp").returncode == 0
        assert curl(topology, *KNOWN) == "ok"


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: deploy/setup.sh --test")
def test_a_browser_asks_for_the_password_once_and_shows_the_page(
    topology: Topology, daemon: Start, tmp_path: Path
) -> None:
    self_signed(topology.directory, "server", "IP:::1")
    web_config(topology.directory)
    daemon(secured(topology))
    with browser(topology, tmp_path, "--ignore-certificate-errors") as page:
        page.open(f"https://alice:{quote(PASSWORD)}@[::1]:9846/")
        assert page.becomes(lambda: page.has("#interfaces .flag"))
        seen = page.text("#state span")
        page.open("https://[::1]:9846/")
        assert page.text("#state span") == seen
        assert not [line for line in page.complaints() if "401" in line]


@contextmanager
def hammering(topology: Topology, clients: int) -> Iterator[Callable[[], int]]:
    """So many ask with a wrong password each time; tells how many were refused so far."""
    stopping, refused = threading.Event(), itertools.count()
    done = [0]

    def hammer(name: int) -> None:
        for number in itertools.count():
            if stopping.is_set():
                return
            said = base64.b64encode(f"alice:{name}-{number}".encode()).decode()
            with suppress(OSError, HTTPException), closing(HTTPConnection("::1", 9846, timeout=60)) as connection:
                with topology.inside("edge"):
                    connection.connect()
                connection.request("GET", "/metrics", headers={"Authorization": f"Basic {said}"})
                assert connection.getresponse().status == 401
                done[0] = next(refused) + 1

    threads = [threading.Thread(target=hammer, args=(name,)) for name in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: done[0]
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def answer_times(topology: Topology) -> tuple[float, float]:
    """How many solicitations Python has answered, and how many of them within PROMPT seconds."""
    found = {
        sample.labels.get("le"): sample.value
        for family in text_string_to_metric_families(curl(topology, *KNOWN, path="/metrics", scheme="http") + "\n")
        if family.name == "npd6_answer_seconds"
        for sample in family.samples
        if sample.name == "npd6_answer_seconds_bucket"
    }
    return found["+Inf"], found[str(PROMPT)]


@pytest.mark.alone
def test_however_many_wrong_passwords_are_tried_solicitations_are_answered_in_time(
    topology: Topology, daemon: Start
) -> None:
    """Each takes bcrypt a fifth of a second here: were that the loop's, or were Python's lock held, hardly any answer
    would be prompt. (A mean wouldn't do: one second in which a busy machine gives the daemon no processor moves it
    as far.)
    """
    web = web_config(topology.directory, cost=12)
    web.write_text(web.read_text().partition("basic_auth_users")[2].join(("basic_auth_users", "")))
    running = daemon(secured(topology, datapath='"python"'))
    assert curl(topology, *KNOWN, scheme="http") == "ok", "the right one is known from here"

    def prompt(seconds: float) -> float:
        """The share of prompt answers."""
        count, were = answer_times(topology)
        with flood(topology, scan(10_000), 200):
            time.sleep(seconds)
        later, are = answer_times(topology)
        assert later - count > 100 * seconds, "they are answered at all"
        return (are - were) / (later - count)

    quiet = prompt(3.0)
    with hammering(topology, 6) as refused:
        assert until(lambda: refused() > 0, 60.0)
        before = refused()
        loud = prompt(6.0)
        assert refused() - before >= 2, "somebody was trying"
    print(f"{quiet:.1%} are answered in {PROMPT} s, and {loud:.1%} while passwords are tried")
    assert loud > 0.75
    assert not running.process.poll()
    began = time.monotonic()
    assert curl(topology, *KNOWN, scheme="http") == "ok"
    assert time.monotonic() - began < 5
