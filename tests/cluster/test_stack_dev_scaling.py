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


def test_the_autoscaler_has_its_limits_and_brings_as_many_pods_as_the_lower_one(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **TEAM, keepData="true", tritonReplicas=2, tritonMaxReplicas=3))
    done = dev.run("up")
    assert done.status == 0, done.output
    [autoscaler] = objects(dev, "horizontalpodautoscalers")
    spec = autoscaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3), "as configured"
    assert spec["scaleTargetRef"]["name"] == "triton", "the Deployment that is there"
    wait_until(lambda: "2/2" in kubectl(dev, "get", "deployment", "triton", "--no-headers"), 120, "a second pod")


def test_up_leaves_the_number_to_the_autoscaler_and_the_client_asks_every_pod_in_turn(
    dev: Checkout, mnist_url: str
) -> None:
    """The number is set as the autoscaler sets it: without metrics-server, that has no figures to act on."""
    kubectl(dev, "scale", "deployment/triton", "--replicas=3")
    wait_until(lambda: "3/3" in kubectl(dev, "get", "deployment", "triton", "--no-headers"), 120, "a third pod")
    before = requests_by_pod(dev)
    changes = {"tritonReplicas": 2, "tritonMaxReplicas": 3, "maxLatencyMs": "60000"}
    dev.configure(**settings(mnist_url, **TEAM, keepData="true", **changes))
    done = dev.run("up")
    assert done.status == 0, done.output
    [deployment] = objects(dev, "deployments")
    assert deployment["spec"]["replicas"] == 3, "`up` leaves it alone"
    answered = [count - before[pod] for pod, count in requests_by_pod(dev).items()]
    assert len(answered) == 3 and min(answered) > 0.25 * sum(answered), f"each has its share: {answered}"


def requests_by_pod(dev: Checkout) -> dict[str, int]:
    """Successful ones since each pod's start, by Triton's own count."""
    found = {}
    for pod in pods(dev, "triton"):
        text = kubectl(dev, "get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8002/proxy/metrics")
        counts = re.findall(rf'^nv_inference_request_success{{model="{MODEL}",.*}} (\d+)', text, re.MULTILINE)
        found[pod] = sum(map(int, counts))
    return found
