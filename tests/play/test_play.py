"""`make play`: finds what a stack serves, also within a cluster, opens the page for it, and ends what it started."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import play.__main__ as launcher
import psutil
import pytest
from play.forward import Forward

from cluster import Cluster
from stack import StackError
from tests.checkout import make_checkout, wait_until
from tests.play.conftest import FAKE_KUBECTL, Pad, running_page
from tests.support import ROOT, free_ports
from tests.workloads.triton import MODEL, Triton

LINE = [(0.5, 0.2), (0.5, 0.8)]
ANSWERED = r"Version 1 answered in [\d.]+ ms"
IN_CLUSTER = "triton.job-ns.svc.cluster.local:8001"
CLUSTER = Cluster("some-context", "job-ns")
# `make play STACK=dev`, but for Pulumi.
LAUNCH = f"""
import sys
import play.__main__ as launcher
from cluster import Cluster
launcher.outputs = lambda stack: {{"triton_endpoint": "{IN_CLUSTER}", "model_name": "{MODEL}", "namespace": "job-ns"}}
launcher.cluster_of = lambda stack: Cluster("some-context", "job-ns")
sys.exit(launcher.main(["dev"]))
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of kubectl; the file with what it was called with."""
    program, log = tmp_path / "bin" / "kubectl", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_KUBECTL} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LOG", str(log))
    return log


@pytest.fixture
def forward(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forward]:
    monkeypatch.setenv("FAKE_TARGET", f"127.0.0.1:{free_ports(1)[0]}")
    made = Forward(CLUSTER, "triton", 8001)
    yield made
    made.close()


def port_forwards() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # also one that ended and was not waited for
            found += [child] if "port-forward" in child.cmdline() else []
    return found


@pytest.mark.usefixtures("page_python")
def test_on_a_cluster_the_page_reaches_triton_through_kubectl_and_ends_it(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, triton: Triton, open_pad: Callable[[str], Pad]
) -> None:
    monkeypatch.setenv("FAKE_TARGET", triton.endpoint)
    with running_page([sys.executable, "-c", LAUNCH]) as page:
        pad = open_pad(page.address)
        pad.draw(*LINE)
        pad.said(ANSWERED)
        forwards = port_forwards()
        assert len(forwards) == 1, "one kubectl for the page"
        assert pad.problems == [] and pad.hosts == {"127.0.0.1"}, "the page is this machine's"
    assert kubectl.read_text() == (
        "--context some-context --namespace job-ns port-forward --address=127.0.0.1 service/triton :8001\n"
    ), "on the stack's cluster, for this machine only, on a port that is free"
    assert not forwards[0].is_running(), "it goes with the page"


def test_when_the_pod_is_replaced_kubectl_is_started_again_on_the_same_port(forward: Forward, kubectl: Path) -> None:
    def calls(number: int) -> bool:
        return len(kubectl.read_text().splitlines()) == number

    for number in (2, 3):
        port_forwards()[0].kill()
        wait_until(functools.partial(calls, number), 20, "another kubectl")
    assert kubectl.read_text().splitlines()[2].endswith(f" service/triton {forward.port}:8001"), (
        "the page knows this one"
    )


def test_nothing_is_left_of_a_forward_that_is_closed(forward: Forward) -> None:
    forward.close()
    assert port_forwards() == [], "kubectl is ended"


def test_what_kubectl_says_against_it_is_told(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ERROR", 'services "triton" not found')
    with pytest.raises(StackError, match='kubectl port-forward: services "triton" not found'):
        Forward(CLUSTER, "triton", 8001)


def test_without_kubectl_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="kubectl is missing"):
        Forward(CLUSTER, "triton", 8001)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:8001", "192.168.49.2:31842"])
def test_an_endpoint_that_is_reached_from_here_is_taken_as_it_is(endpoint: str) -> None:
    known = {"triton_endpoint": endpoint, "namespace": "job-ns"}
    with launcher.reachable("dev", known) as reached:
        assert reached == endpoint, "no kubectl is needed for a NodePort or a LoadBalancer"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "stack local serves nothing: run `make up`"),
        ({"triton_endpoint": "127.0.0.1:9", "model_name": MODEL}, "does not answer at 127.0.0.1:9: run `make up`"),
    ],
    ids=["no endpoint", "no answer"],
)
def test_where_no_triton_answers_make_up_is_named(
    known: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "outputs", lambda stack: known)
    monkeypatch.setattr(launcher, "READY_SECONDS", 0.5)
    monkeypatch.setattr(launcher, "end_once", lambda: None)  # the tests' own Ctrl-C stays as it is
    assert launcher.main(["local"]) == 1, "there is nothing to play with"
    assert said in capsys.readouterr().err, "the command that mends it"


def test_in_a_checkout_where_nothing_ever_ran_make_up_is_named(tmp_path: Path) -> None:
    if shutil.which("pulumi", path=f"{ROOT}/.tools/bin:{os.environ['PATH']}") is None:
        pytest.skip("the Pulumi CLI is missing: run `make setup`")
    root = make_checkout(tmp_path).root
    done = subprocess.run(
        [root / ".venv/bin/python", "-m", "play", "local"], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, ""), "nothing is started"
    assert "make up" in done.stderr and done.stderr.count("\n") == 1, f"one line says what to do: {done.stderr}"
