"""A real Prometheus for the tests, and a stand-in for the one exporter that needs a cluster."""

import contextlib
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import free_ports

needs_prometheus = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("prometheus", "promtool")),
    reason="Prometheus is missing: apt-get install prometheus (Debian, Ubuntu)",
)


def promtool(*arguments: object) -> str:
    """Prometheus' own judge of rules; it must be content."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as response:
            return json.load(response)["data"]

    def values(self, query: str) -> list[float]:
        """What the query has now, without what is not a number: so Prometheus writes "nothing in this window"."""
        found = (float(series["value"][1]) for series in self.get("query", query=query)["result"])
        return [value for value in found if value == value]

    def awaited(self, query: str) -> list[float]:
        """The same, once there is something."""
        eventually(lambda: self.values(query) != [], f"no data for {query}")
        return self.values(query)

    def firing(self, rules: Path) -> dict[str, str]:
        """The alerts of a rule file that fire, and what they tell."""
        found = [rule for rule in self._rules(rules) if rule["state"] == "firing"]
        return {rule["name"]: str(rule["alerts"][0]["annotations"]["description"]) for rule in found}

    def _rules(self, file: Path) -> list[dict[str, Any]]:
        groups = self.get("rules")["groups"]
        return [rule for group in groups if group["file"] == str(file) for rule in group["rules"]]


@contextlib.contextmanager
def running_prometheus(
    directory: Path, targets: Mapping[str, dict[str, str]], rules: list[Path]
) -> Iterator[Prometheus]:
    """Scrapes and evaluates each second.

    Args:
        targets: host:port → the labels that discovery would attach.
    """
    scrapes = [
        {
            "job_name": target,
            "honor_labels": True,  # as the usual charts have it, for kube-state-metrics speaks of other namespaces
            "static_configs": [{"targets": [target], "labels": labels}],
        }
        for target, labels in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": scrapes,
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    [port] = free_ports(1)
    command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: _is_ready(prometheus), "Prometheus must start")
        yield prometheus
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(prometheus: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def serving_metrics(text: str) -> Iterator[str]:
    """An exporter that always says the same; yields its host:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def eventually(condition: Callable[[], bool], reason: str, patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, reason
        time.sleep(0.2)
