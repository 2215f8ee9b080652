"""Settings that are wrong by type, by range, by name, or in their combination."""

import pytest

from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings
from tests.bad_input.case import Bench, Case
from tests.unit.test_settings import defaults


def refused(changes: dict[str, str], without: str = "") -> str:
    """The line that refuses Pulumi.yaml's defaults with these changes."""
    config = {**defaults(), **{f"mnist:{key}": value for key, value in changes.items()}}
    config.pop(f"mnist:{without}", None)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config, {})
    return str(caught.value)


def wrong(key: str, value: str, accepted: str) -> Case:
    """A value that the key does not take; the line repeats it and says what is accepted."""

    def provoke(_bench: Bench) -> str:
        return refused({key: value})

    return Case(f"setting {key} = {value!r}", provoke, (f"mnist:{key} is {value!r}: ", accepted))


def combined(name: str, changes: dict[str, str], *expected: str) -> Case:
    return Case(f"setting {name}", lambda _bench: refused(changes), expected)


def unknown(key: str, hint: str) -> Case:
    expected = (f"mnist:{key} is not a setting; {hint}",)
    return Case(f"setting {key} does not exist", lambda _bench: refused({key: "1"}), expected)


ADDRESS = "must be http://… or https://…, without a user or password"
ITEM = "lower-case letters, digits and inner hyphens, 63 at most"
MEMORY = "must be a whole number of Ki, Mi, Gi or Ti, such as 4Gi"
NAME = "must be letters, digits, _ and -, 63 at most, a letter or digit first"
STORE = "must be s3://bucket/path or s3://https://host:port/bucket/path, or empty for the storage"
ONE_LINE = "must be one line without control characters"

VALUES = (
    ("platform", "docker", "must be 'kubernetes' or 'local'"),
    ("runThrough", "deploy", "must be one of prepare-data, train, export, triton, client, report"),
    ("dataset", "fashion", "must be 'mnist', 'digits', 'custom' or 'auto'"),
    ("datasetDir", "a\nb", "without control characters"),
    ("datasetDir", "~no-such-user/mnist", "no home directory is known for its ~"),
    ("datasetUrl", "ftp://example.org", ADDRESS),
    ("datasetUrl", "http://a\0b", ADDRESS),
    ("epochs", "-1", "must be greater than or equal to 0"),
    ("epochs", "1001", "must be less than or equal to 1000"),
    ("epochs", "many", "must be a whole number"),
    ("epochs", "1.5", "must be a whole number"),
    ("epochs", "", "must be a whole number"),
    ("batchSize", "1", "must be greater than or equal to 2"),
    ("batchSize", "8193", "must be less than or equal to 8192"),
    ("learningRate", "0", "must be greater than 0"),
    ("learningRate", "1.5", "must be less than or equal to 1"),
    ("learningRate", "nan", "must be a finite number"),
    ("seed", "-1", "must be greater than or equal to 0"),
    ("seed", str(2**31), f"must be less than or equal to {2**31 - 1}"),
    ("targetAccuracy", "1.01", "must be less than or equal to 1"),
    ("checkpointEvery", "0", "must be greater than or equal to 1"),
    ("trainWorkers", "0", "must be greater than or equal to 1"),
    ("modelName", "../outside", NAME),
    ("modelName", "", NAME),
    ("modelName", "two words", NAME),
    ("modelName", "a" * 64, NAME),
    ("minAccuracy", "97", "must be less than or equal to 1"),
    ("minAccuracy", "97%", "must be a number"),
    ("minAccuracy", "-0.1", "must be greater than or equal to 0"),
    ("precision", "fp16", "must be 'fp32' or 'int8'"),
    ("keepVersions", "0", "must be greater than or equal to 1"),
    ("servedVersion", "-1", "must be greater than or equal to 0"),
    ("servedVersion", "newest", "must be a whole number"),
    ("autoRollback", "sometimes", "must be true or false"),
    ("tritonCpus", "-1", "must be greater than or equal to 0"),
    ("queueDelayMicroseconds", "1000001", "must be less than or equal to 1000000"),
    ("maxLatencyMs", "inf", "must be a finite number"),
    ("maxLatencyMs", "-1", "must be greater than or equal to 0"),
    ("namespace", "Job_NS", ITEM),
    ("registry", "http://localhost:5000", "must be host[:port][/path], without http:// before it"),
    ("registryUser", "me\x07", ONE_LINE),
    ("buildNetwork", "two words", "must be the name of a Docker network"),
    ("buildArgs", "TORCH_BACKEND=cpu", 'must be a list, such as ["one", "two"]'),
    ("tritonImage", "two words", "must be slim, ngc or an image's reference"),
    ("tritonReplicas", "0", "must be greater than or equal to 1"),
    ("tritonMaxReplicas", "-1", "must be greater than or equal to 0"),
    ("autoscaleMetric", "memory", "must be 'cpu' or 'queueTime'"),
    ("accelerator", "tpu", "must be 'none' or 'nvidia'"),
    ("modelRepository", "gs://bucket/models", STORE),
    ("modelRepository", "s3://minio:9000", STORE),
    ("s3AccessKeyId", "a\tb", ONE_LINE),
    ("s3Region", "US East", "must be a region's name, such as us-east-1"),
    ("tritonMemory", "1٣Gi", MEMORY),
    ("trainCpus", "two", "must be a whole number"),
    ("trainMemory", "4 GB", MEMORY),
    ("serviceType", "Ingress", "must be 'ClusterIP', 'NodePort' or 'LoadBalancer'"),
    ("operatorsGroup", "a\nb", ONE_LINE),
    ("monitoring", "prometheus", "must be 'none', 'annotations' or 'operator'"),
    ("monitoringNamespace", "Monitoring_NS", ITEM),
    ("maxRunAgeDays", "0", "must be greater than or equal to 1"),
    ("maxRunAgeDays", "366", "must be less than or equal to 365"),
    ("storageClass", "Fast", "must be a storage class: lower-case letters, digits, . and -"),
    ("storageSize", "5", MEMORY),
    ("storageDir", "a\tb", "without control characters"),
    ("storageDir", "~no-such-user/storage", "no home directory is known for its ~"),
    ("storageDir", f"/x{'y' * 70}\0", "without control characters"),
    ("keepData", "maybe", "must be true or false"),
    ("stageTimeoutMinutes", "0", "must be greater than or equal to 1"),
)
OTHERS = (
    combined(
        "buildArgs with an item that is none", {"buildArgs": '["no-value"]'}, "mnist:buildArgs has 'no-value'", "NAME="
    ),
    combined("buildArgs nested deeply", {"buildArgs": "[" * 200_000}, "mnist:buildArgs is", "characters", "a list"),
    combined(
        "clientNamespaces in capitals", {"clientNamespaces": '["a", "B"]'}, "mnist:clientNamespaces has 'B'", ITEM
    ),
    combined("registryPassword of two lines", {"registryPassword": "hunter\n2"}, "mnist:registryPassword: ", ONE_LINE),
    combined("storageDir with a name too long", {"storageDir": "x" * 300}, "mnist:storageDir", "longer than 255 bytes"),
    combined("seed of 5,000 digits", {"seed": "9" * 5000}, "mnist:seed is '99", "… (5,002 characters)", "exceeded"),
    combined("dataset custom without a source", {"dataset": "custom"}, "custom needs datasetDir or datasetUrl"),
    combined(
        "datasetUrl with a password", {"datasetUrl": "https://me:hunter2@example.org"}, f"mnist:datasetUrl: {ADDRESS}"
    ),
    combined(
        "trainWorkers with too small a batch", {"trainWorkers": "8", "batchSize": "8"}, "batchSize", "trainWorkers"
    ),
    combined("datasetDir for pods", {"datasetDir": "/mnist"}, "datasetDir", "pods cannot read it: use datasetUrl"),
    combined("registryUser alone", {"registryUser": "me"}, "registryUser and registryPassword go together"),
    combined(
        "tritonMaxReplicas below tritonReplicas",
        {"tritonReplicas": "3", "tritonMaxReplicas": "2"},
        "tritonMaxReplicas 2 is below tritonReplicas 3: raise it, or set 0",
    ),
    combined(
        "accelerator with an image that has no use for it",
        {"accelerator": "nvidia"},
        "accelerator nvidia needs tritonImage ngc",
    ),
    combined(
        "accelerator with a precision for CPUs",
        {"accelerator": "nvidia", "tritonImage": "ngc", "precision": "int8"},
        "precision int8 is for CPUs",
    ),
    combined(
        "modelRepository on stack local",
        {"modelRepository": "s3://bucket/models", "platform": "local"},
        "modelRepository is for Kubernetes",
    ),
    combined(
        "modelRepository with autoRollback",
        {"modelRepository": "s3://bucket/models", "autoRollback": "true"},
        "autoRollback needs the model repository in the storage",
    ),
    combined("s3SecretAccessKey alone", {"s3SecretAccessKey": "x"}, "s3AccessKeyId and s3SecretAccessKey go together"),
    combined(
        "s3SecretAccessKey of two lines", {"s3SecretAccessKey": "hunter\n2"}, "mnist:s3SecretAccessKey: ", ONE_LINE
    ),
    combined("registryPassword alone", {"registryPassword": "x"}, "registryUser and registryPassword go together"),
    combined(
        "autoRollback with an image without our launcher",
        {"autoRollback": "true", "tritonImage": "ngc"},
        "autoRollback needs tritonImage slim",
    ),
    combined(
        "several wrong at once",
        {"epochs": "x", "seed": "y"},
        "mnist:epochs is 'x': must be a whole number",
        "; mnist:seed is 'y'",
    ),
    unknown("epoch", "did you mean mnist:epochs?"),
    unknown("batchsize", "did you mean mnist:batchSize?"),
    unknown("batch_size", "did you mean mnist:batchSize?"),
    unknown("minAcuracy", "did you mean mnist:minAccuracy?"),
    unknown("kubeContext", "the cluster is chosen by kubernetes:context"),
    unknown("qqq", "Pulumi.yaml lists the settings"),
    Case(
        "setting epochs without a default",
        lambda _bench: refused({}, without="epochs"),
        ("mnist:epochs is not set: set it, or restore its default in Pulumi.yaml",),
    ),
)
CASES = (*(wrong(key, value, accepted) for key, value, accepted in VALUES), *OTHERS)
COVERED = {key for key, _, _ in VALUES} | {"registryPassword", "s3SecretAccessKey", "clientNamespaces"}
