"""Beyond one pod on the cluster: two pods train one model, replicas that all get requests, and the autoscaler."""

import re

from tests.checkout import Checkout, wait_until
from tests.cluster.stack import BETTER, MODEL, NAMESPACE, finished, kubectl, objects, pods, settings

# Of what one node of the usual kind has.
TEAM = {**BETTER, "trainWorkers": 2, "trainMemory": "3Gi"}


def test_two_pods_train_one_model_as_well_as_one(dev: Checkout, mnist_url: str) -> None:
    alone = finished(dev, "train")[-1]
    dev.configure(**settings(mnist_url, **TEAM, keepData="true"))
    done = dev.run("up")
    assert done.status == 0, done.output
    [job] = objects(dev, "jobs", "--field-selector=metadata.name=train")
    assert job["status"]["completedIndexes"] == "0,1", "two pods, and both came to their end"
    together = finished(dev, "train")[-1]
    assert together["config"]["workers"] == 2, "the training knows"
    assert len(together["history"]) == len(alone["history"]), "as many steps: the batch is the same"
    assert together["accuracy"] >= alone["accuracy"] - 0.003, "and no less is learnt"


def test_replicas_are_asked_in_turn_and_the_autoscaler_has_its_limits(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **TEAM, keepData="true", tritonReplicas=2, tritonMaxReplicas=3))
    done = dev.run("up")
    assert done.status == 0, done.output
    [autoscaler] = objects(dev, "horizontalpodautoscalers")
    spec = autoscaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3), "as configured"
    assert spec["scaleTargetRef"]["name"] == "triton", "the Deployment that is there"
    conditions = {entry["type"]: entry["status"] for entry in autoscaler.get("status", {}).get("conditions", [])}
    assert conditions.get("AbleToScale", "True") == "True", "it finds what it scales"
    answered = requests_by_pod(dev)
    assert len(answered) == 2, "as few as allowed"
    assert min(answered) > 0.35 * sum(answered), f"the client's requests go to each replica in turn: {answered}"


def test_the_number_of_replicas_is_the_autoscalers_matter(dev: Checkout, mnist_url: str) -> None:
    """It is set as the autoscaler sets it: without metrics-server, that has no figures to act on."""
    kubectl(dev, "scale", "deployment/triton", "--replicas=3")
    wait_until(lambda: len(pods(dev, "triton")) == 3, 60, "a third pod")
    changes = {"tritonReplicas": 2, "tritonMaxReplicas": 3, "maxLatencyMs": "60000"}
    dev.configure(**settings(mnist_url, **TEAM, keepData="true", **changes))
    done = dev.run("up")
    assert done.status == 0, done.output
    [deployment] = objects(dev, "deployments")
    assert deployment["spec"]["replicas"] == 3, "`up` leaves it alone"


def requests_by_pod(dev: Checkout) -> list[int]:
    """Successful ones since each pod's start, by Triton's own count."""
    found = []
    for pod in pods(dev, "triton"):
        text = kubectl(dev, "get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8002/proxy/metrics")
        counts = re.findall(rf'^nv_inference_request_success{{model="{MODEL}",.*}} (\d+)', text, re.MULTILINE)
        found.append(sum(map(int, counts)))
    return found
