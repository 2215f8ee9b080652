"""Stack dev on a real cluster: up with full MNIST, unchanged up, and what changes run again."""

import json
import os
import pty
import subprocess

import numpy as np
import pytest

from mnist.inference import ServedModel
from tests.checkout import Checkout
from tests.cluster.stack import BETTER, GOOD, MODEL, NAMESPACE, STAGES, context, endpoint, results, settings, uids
from tests.declared import declare
from tests.load import Load


def test_an_unknown_context_is_refused_before_anything_is_created(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **GOOD))
    assert dev.pulumi("stack", "select", "--create").status == 0
    known = context(dev)
    dev.pulumi("config", "set", "kubernetes:context", "no-such-cluster")
    done = dev.run("up")
    dev.pulumi("config", "set", "kubernetes:context", known)
    assert done.status != 0
    assert "kubernetes:context is 'no-such-cluster'" in done, done.output
    assert "Traceback" not in done, done.output


def test_up_trains_serves_and_verifies_full_mnist(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **GOOD))
    done = dev.run("up")
    assert done.status == 0, done.output
    assert set(uids(dev)) == set(STAGES), "every stage must be there"
    found = results(dev)
    assert found["accuracy"] >= 0.985, "one epoch must reach 98.5 % served through Triton"
    assert found["equal_to_pytorch"] == found["test_images"] == 10_000, "every prediction must be PyTorch's"
    assert "<svg" in (dev.storage / "results/latest/report.html").read_text(), "the report must be fetched"


def test_the_endpoint_answers_from_outside_the_cluster(dev: Checkout) -> None:
    with ServedModel(endpoint(dev), MODEL) as model:
        model.wait_ready(30)
        assert model.infer(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10), "logits of three images"


def test_the_logs_are_fetched_out_of_the_claim(dev: Checkout) -> None:
    done = dev.tool("cluster", "logs")
    assert done.status == 0, done.output
    for stage in ("train", "export", "client"):
        assert f"{stage}.log" in done, done.output


def test_the_inspector_shows_the_claim_and_can_change_nothing(dev: Checkout) -> None:
    """In a terminal, as a person uses it."""
    terminal, inside = pty.openpty()
    command = [str(dev.root / ".venv/bin/python"), "tools/cluster.py", "inspect", dev.stack]
    with subprocess.Popen(command, cwd=dev.root, stdin=inside, stdout=inside, stderr=inside) as process:
        os.close(inside)
        os.write(terminal, f"ls models/{MODEL}/1; touch models/mine || echo cannot; exit\n".encode())
        said = b""
        while process.poll() is None or said[-1:] != b"":
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the terminal's other side is closed
                break
    os.close(terminal)
    text = said.decode()
    assert "the claim is at /storage, read-only" in text and "metadata.json" in text, text
    assert "Read-only file system" in text and "cannot" in text, text


def test_the_versions_are_listed(dev: Checkout) -> None:
    done = dev.tool("versions", "versions")
    assert done.status == 0, done.output
    assert "fp32" in done and "mnist" in done and "served" in done, done.output


def test_an_unchanged_up_changes_nothing(dev: Checkout) -> None:
    before = uids(dev)
    done = dev.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert done.status == 0, done.output
    assert uids(dev) == before, "no object may be replaced"


def test_a_client_change_runs_only_the_client_and_the_report(dev: Checkout) -> None:
    before = uids(dev)
    dev.edit("workloads/client.py", lambda code: code + "# changed\n")
    done = dev.run("up")
    assert done.status == 0, done.output
    after = uids(dev)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == ["client", "report"], "both are of the client's image, nothing else is"


def test_a_better_model_becomes_version_2_under_load_without_a_failed_request(dev: Checkout, mnist_url: str) -> None:
    before = uids(dev)
    dev.configure(**settings(mnist_url, **BETTER))
    with Load(endpoint(dev), MODEL, pause=0.02) as load:
        done = dev.run("up")
    assert done.status == 0, done.output
    after = uids(dev)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == STAGES[1:], "all but prepare-data"
    assert load.answers > 1000, "the load must have lasted"
    load.assert_none_failed()
    assert load.versions == {1, 2}, "every answer is from the old version or the new one"
    assert results(dev)["served_version"] == 2, "the better model is served"


def test_every_manifest_is_accepted_by_the_api_server(dev: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """By server-side dry run, in a namespace that enforces Pod Security restricted."""
    declared = declare(
        monkeypatch,
        namespace=f"{NAMESPACE}-dry",
        clientNamespaces='["apps"]',
        tritonReplicas="2",
        operatorsGroup="ops",
        registryUser="me",
        registryPassword="secret",
    )
    manifests = [inputs for name, inputs in declared.inputs.items() if declared.types[name].startswith("kubernetes:")]
    namespace = [manifest for manifest in manifests if manifest["kind"] == "Namespace"]
    others = [manifest for manifest in manifests if manifest["kind"] != "Namespace"]
    apply = ["kubectl", "--context", context(dev), "apply", "--filename=-"]
    subprocess.run(apply, input=json.dumps(namespace[0]), text=True, check=True, capture_output=True)
    try:
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": others})
        done = subprocess.run([*apply, "--dry-run=server"], input=content, text=True, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, f"no pod may violate restricted: {done.stderr}"
        assert done.stdout.count("dry run") == len(others), done.stdout
    finally:
        delete = ["kubectl", "--context", context(dev), "delete", "namespace", f"{NAMESPACE}-dry", "--wait=false"]
        subprocess.run(delete, check=True, capture_output=True)
