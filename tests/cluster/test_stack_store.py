"""A stack whose Triton reads its models out of an object store; in a namespace of its own."""

import json
import subprocess
from collections.abc import Iterator

import boto3
import pytest

from tests.checkout import Checkout
from tests.cluster.conftest import cluster_checkout
from tests.cluster.stack import MODEL, NAMESPACE, context, endpoint, own_address, settings
from tests.load import Load
from tests.s3 import running_s3

KEY, SECRET = "AKIATEST", "a-key-that-nobody-may-see"
STORE_NAMESPACE = f"{NAMESPACE}-store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = cluster_checkout(tmp_path_factory)
    made.environment["PULUMI_CONFIG_PASSPHRASE"] = "correct horse battery staple"
    with running_s3("0.0.0.0") as port:
        address = f"http://{own_address()}:{port}"
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        client.create_bucket(Bucket="models")
        url = f"s3://{address}/models/mnist"
        changes = {"namespace": STORE_NAMESPACE, "minAccuracy": "0.9", "dataset": "digits", "datasetUrl": ""}
        made.configure(**settings("", modelRepository=url, s3AccessKeyId=KEY, **changes))
        assert made.pulumi("stack", "select", "--create").status == 0, "a stack of its own"
        assert made.pulumi("config", "set", "--secret", "mnist:s3SecretAccessKey", SECRET).status == 0
        yield made
        made.run("down")


def kubectl(store: Checkout, *arguments: str) -> str:
    command = ["kubectl", "--context", context(store), "--namespace", STORE_NAMESPACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_triton_serves_out_of_the_store_and_mounts_no_claim(store: Checkout) -> None:
    done = store.run("up")
    assert done.status == 0, done.output
    assert SECRET not in done.output, "the key is shown to nobody"
    deployment = json.loads(kubectl(store, "get", "deployment", "triton", "--output=json"))
    assert "persistentVolumeClaim" not in json.dumps(deployment), "so it can run on any node"
    assert SECRET not in kubectl(store, "get", "pods,jobs,deployments", "--output=yaml"), "a Secret alone has it"
    assert SECRET not in store.pulumi("stack", "export").output, "and the state has it encrypted"


def test_a_pod_that_is_replaced_reads_the_store_anew(store: Checkout) -> None:
    """With a second one beside it, no request fails."""
    with Load(endpoint(store), MODEL, pause=0.02) as load:
        load.go_on(50)
        kubectl(store, "rollout", "restart", "deployment/triton")
        kubectl(store, "rollout", "status", "deployment/triton", "--timeout=120s")
        load.go_on(50)
    load.assert_none_failed()
