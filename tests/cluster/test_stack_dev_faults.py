"""Faults on the cluster, made for real: checks that fail, versions gone back to, pods that are killed."""

import pytest

from tests.checkout import Checkout, wait_until
from tests.cluster.stack import BETTER, MODEL, endpoint, finished, kubectl, objects, pods, results, settings, uids
from tests.load import Load


def test_a_check_that_fails_for_good_fails_up_with_the_reason_out_of_the_pod(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **BETTER | {"maxLatencyMs": "0.001"}))
    done = dev.run("up")
    assert done.status != 0, "p99 above maxLatencyMs must fail the run"
    assert "is above maxLatencyMs 0.001" in done, f"the pod's own line must be shown:\n{done.output}"
    assert "Traceback" not in done, done.output


@pytest.mark.parametrize(("wanted", "served"), [(1, 1), (0, 2)])
def test_one_up_goes_back_to_a_kept_version_and_forth_again(
    dev: Checkout, mnist_url: str, wanted: int, served: int
) -> None:
    """It also goes on after the failed check."""
    trained = uids(dev)["train"]
    dev.configure(**settings(mnist_url, **BETTER, servedVersion=wanted))
    done = dev.run("up")
    assert done.status == 0, done.output
    assert results(dev)["served_version"] == served, "what was asked for"
    assert uids(dev)["train"] == trained, "nothing is trained for it"


def test_a_killed_triton_pod_fails_no_request_of_the_client_library(dev: Checkout) -> None:
    [pod] = pods(dev, "triton")
    with Load(endpoint(dev), MODEL, pause=0.02) as load:
        load.go_on(50)
        kubectl(dev, "delete", "pod", pod, "--grace-period=0", "--force")
        wait_until(lambda: len(pods(dev, "triton")) == 1 and pods(dev, "triton") != [pod], 60, "another pod is there")
        load.go_on(50)
    load.assert_none_failed()


def test_a_second_replica_keeps_the_claim_and_serves_while_the_other_is_killed(dev: Checkout, mnist_url: str) -> None:
    [claim] = objects(dev, "persistentvolumeclaims")
    dev.configure(**settings(mnist_url, **BETTER, tritonReplicas=2))
    done = dev.run("up")
    assert done.status == 0, done.output
    [kept] = objects(dev, "persistentvolumeclaims")
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"], "the data must stay"
    assert len(objects(dev, "poddisruptionbudgets")) == 1, "one pod at a time may be taken"
    first, second = pods(dev, "triton")
    with Load(endpoint(dev), MODEL, pause=0.02) as load:
        for pod in (first, second):
            load.go_on(100)
            kubectl(dev, "delete", "pod", pod, "--grace-period=0", "--force")
            wait_until(lambda: "2/2" in kubectl(dev, "get", "deployment", "triton", "--no-headers"), 120, "both serve")
    load.assert_none_failed()


def test_a_training_whose_pod_is_deleted_on_kept_data_resumes_to_the_same_model(dev: Checkout, mnist_url: str) -> None:
    """After a destroy that kept the claim. The same training again gives the same weights: version 2 stays."""
    before = finished(dev, "train")[-1]
    dev.configure(**settings(mnist_url, **BETTER, keepData="true", runThrough="prepare-data"))
    assert dev.run("up").status == 0, "the setting must be taken over"
    assert dev.run("down").status == 0, "destroy must succeed"
    assert [item["metadata"]["name"] for item in objects(dev, "persistentvolumeclaims")] == ["model-log"], "kept"
    assert objects(dev, "jobs,deployments,services,pods") == [], "and nothing else"
    dev.configure(**settings(mnist_url, **BETTER, keepData="true"))
    process = dev.start("up")
    wait_until(lambda: " 80/235" in _log_of_training(dev), 300, "the training is past its first checkpoint")
    [pod] = pods(dev, "train")
    kubectl(dev, "delete", "pod", pod, "--grace-period=0", "--force")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    again = finished(dev, "train")[-1]
    assert again["history"] == before["history"], "every step's loss is that of the uninterrupted training"
    published = finished(dev, "export")[-1]
    assert not published["published"], "the very same model is there already, as version 2"
    assert published["served_version"] == results(dev)["served_version"] == 2, "and stays"


def _log_of_training(dev: Checkout) -> str:
    running = pods(dev, "train")
    return kubectl(dev, "logs", f"pod/{running[0]}", "--ignore-errors") if running else ""
