"""Start tritonserver on the model repository in storage.

    python workloads/serving/launch.py --storage storage/local --grpc-port 8001 --http-port 8000 --metrics-port 8002

Checks what can be checked beforehand (the machine, the served model's sum), then keeps tritonserver running. A model
repository in an object store is Triton's own to read and check.
"""

import argparse
import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mnist import cli
from mnist.cli import StageLog, stop_request
from mnist.errors import ModelError, ServerError
from mnist.repository import MODEL_FILE, ModelRepository
from mnist.storage import Storage, explained
from serving import runtime
from serving.supervisor import Supervisor

# Restricted protocols are open to whoever sends a header that the command line names. Neither gRPC nor HTTP can carry
# this one, a colon ends a name: so they are closed to all, and there is no key to keep secret.
RESTRICTED = "model-repository,shared-memory,trace,logging:cannot:be-sent=off"
# Latencies as p50 and p99, which Triton does not measure unasked; it costs nothing that could be measured.
QUANTILES = ("summary_latencies=true", "summary_quantiles=0.5:0.05,0.99:0.001")  # quantile:error
SERVER = Path("bin", "tritonserver")
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # what a shell leaves as it is
EXIT_SECONDS = 10  # for requests in flight when asked to stop


def parser() -> argparse.ArgumentParser:
    options = cli.parser("triton", (__doc__ or "").splitlines()[0])
    options.add_argument("--model-name", default="resnet18_mnist")
    options.add_argument(
        "--model-repository", default="", help="read models there, s3://bucket/path, not in the storage"
    )
    options.add_argument("--triton", type=Path, default=Path("/opt/triton"), help="the parts (%(default)s)")
    options.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    options.add_argument(
        "--connection-seconds",
        type=int,
        default=0,
        help="ask gRPC clients to connect anew after so long, which moves them to new pods of a Service; 0: never",
    )
    options.add_argument("--grpc-port", type=int, default=8001)
    options.add_argument("--http-port", type=int, default=8000)
    options.add_argument("--metrics-port", type=int, default=8002)
    return options


def launch(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    server = options.triton / SERVER
    for problem in runtime.problems():
        raise ServerError(problem)
    if not server.is_file():
        raise ServerError(f"{server} is missing: run `make setup`, or name the directory of Triton's parts by --triton")
    with _plain_path(storage.models) as models, _plain_path(options.triton) as triton:
        _supervise(options, storage, models, triton, log)
    return {}


def _supervise(options: argparse.Namespace, storage: Storage, models: Path, triton: Path, log: StageLog) -> None:
    repository = ModelRepository(storage.models, options.model_name)
    prefix = f"triton-{os.getpid()}-"
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    supervisor = Supervisor(
        [str(triton / SERVER), *_flags(options, models, triton, prefix)],
        runtime.environment(triton),
        ready_url=f"http://{host}:{options.http_port}/v2/health/ready",
        restart_token=(lambda: "") if options.model_repository else repository.restart_token,
        check=lambda: options.model_repository or f"{options.model_name} version {_check_model(repository)}",
        say=log.say,
        memory_prefix=prefix,
    )
    with stop_request() as stop:
        supervisor.run(stop)


@contextlib.contextmanager
def _plain_path(path: Path) -> Iterator[Path]:
    """Triton's Python backend has a shell start its processes, and quotes nothing: a path with blanks gets a link."""
    if PLAIN.fullmatch(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="triton-") as directory:
        link = Path(directory) / path.name
        link.symlink_to(path.absolute())
        yield link


def _flags(options: argparse.Namespace, models: Path, triton: Path, memory_prefix: str) -> list[str]:
    flags = [
        f"--model-repository={options.model_repository or models}",
        f"--backend-directory={triton / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
        "--model-control-mode=none",
        f"--grpc-restricted-protocol={RESTRICTED}",
        f"--http-restricted-api={RESTRICTED}",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        "--allow-gpu-metrics=false",
        *(f"--metrics-config={setting}" for setting in QUANTILES),
        f"--http-address={options.host}",
        f"--grpc-address={options.host}",
        f"--metrics-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-port={options.metrics_port}",
    ]
    if options.connection_seconds:
        flags.append(f"--grpc-max-connection-age={options.connection_seconds * 1000}")
    return flags


def _check_model(repository: ModelRepository) -> int:
    """The served version, whose file is what was published.

    Raises:
        ModelError: nothing is published, or the file changed since.
    """
    version = repository.served()
    if version is None:
        raise ModelError(f"{repository.directory} has no published version: run the export stage")
    path = repository.version_directory(version) / MODEL_FILE
    metadata = repository.metadata(version)
    if not path.is_file():
        raise ModelError(f"{path} is missing: remove version {version} and run the export stage again")
    with explained(path, "read"), path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != metadata.sha256:
            raise ModelError(
                f"{path} is damaged (SHA-256 differs from its metadata): remove version {version}, export again"
            )
    return version


def main(argv: list[str] | None = None) -> int:
    return cli.run("triton", parser(), argv, launch, writes=False)


if __name__ == "__main__":
    sys.exit(main())
