"""Stages as processes of this machine."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi

from pipeline.errors import ConfigurationError
from pipeline.fingerprint import fingerprint, imported_files
from pipeline.settings import ROOT, Settings
from pipeline.stages import TORCHRUN, TORCHRUN_ENVIRONMENT, Stage
from process.resources import Directory, Job, Server

WORKLOADS = ROOT / "workloads"
TRITON = ROOT / ".tools" / "triton"
HOST = "127.0.0.1"  # the endpoint has no authentication, so it is for this machine only
PORTS = {"grpc": 8001, "http": 8000, "metrics": 8002}
READY_URL = f"http://{HOST}:{{http}}/v2/health/ready"


class LocalTarget:
    """Runs each job to its end and keeps each server running in the background.

    Raises:
        ConfigurationError: datasetDir does not exist.
    """

    def __init__(self, settings: Settings, stack: str) -> None:
        self.settings = settings
        self.path = settings.storage_path(stack)
        self.servers: dict[str, Server] = {}
        self.jobs: dict[str, Job] = {}
        dataset = settings.dataset_path()
        if dataset is not None and settings.dataset != "digits" and not os.path.isdir(dataset):
            raise ConfigurationError(f"mnist:datasetDir (or MNIST_DIR) is {str(dataset)!r}: no such directory")
        self.storage = Directory(
            "storage",
            path=str(self.path),
            opts=pulumi.ResourceOptions(retain_on_delete=settings.keep_data),
        )

    def add(self, stage: Stage, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        opts = pulumi.ResourceOptions(
            depends_on=[self.storage, *after],
            custom_timeouts=self._timeouts(),
            delete_before_replace=True,
        )
        runs = [resource.run for resource in after if isinstance(resource, Job | Server)]
        if stage.kind == "server":
            server = Server(
                stage.name,
                command=[*self._command(stage), *(f"--{name}-port={{{name}}}" for name in PORTS)],
                fingerprint=self._fingerprint(stage),
                directory=str(self.path),
                after=runs,
                ports=PORTS,
                ready_url=READY_URL,
                opts=opts,
            )
            self.servers[stage.name] = server
            return server
        command: list[pulumi.Input[str]] = list(self._command(stage))
        if stage.calls is not None:
            command.append(pulumi.Output.concat("--endpoint=", self._endpoint(stage.calls, "grpc")))
        job = Job(
            stage.name,
            command=command,
            fingerprint=self._fingerprint(stage),
            directory=str(self.path),
            after=runs,
            produces=[str(self.path / name.format(model=self.settings.model_name)) for name in stage.produces],
            opts=opts,
        )
        self.jobs[stage.name] = job
        return job

    def outputs(self) -> Mapping[str, Any]:
        triton = {
            f"triton_{prefix}endpoint": self._endpoint(name, port)
            for name in self.servers
            for prefix, port in (("", "grpc"), ("http_", "http"), ("metrics_", "metrics"))
        }
        report = {"report": str(self.path / "results" / "latest" / "report.html")} if "report" in self.jobs else {}
        return {**triton, "model_name": self.settings.model_name, "storage": str(self.path), **report}

    def _endpoint(self, server: str, port: str) -> pulumi.Output[str]:
        return self.servers[server].ports.apply(lambda ports: f"{HOST}:{int(ports[port])}")

    def _timeouts(self) -> pulumi.CustomTimeouts:
        limit = f"{self.settings.stage_timeout_minutes}m"
        return pulumi.CustomTimeouts(create=limit, update=limit)

    def _command(self, stage: Stage) -> list[str]:
        options = {"storage": str(self.path), **stage.arguments(self.settings)}
        if stage.kind == "server":
            options |= {"triton": str(TRITON), "host": HOST}
        workers = stage.workers(self.settings)
        script = [str(WORKLOADS / stage.script), *(f"--{key}={value}" for key, value in options.items())]
        return [*(torchrun(workers) if workers > 1 else [sys.executable]), *script]

    def _fingerprint(self, stage: Stage) -> str:
        code = imported_files(WORKLOADS / stage.script, WORKLOADS)
        code += [WORKLOADS / name for name in stage.other_code]
        arguments = {**stage.arguments(self.settings), "workers": str(stage.workers(self.settings))}
        return fingerprint(ROOT, code, arguments, self._inputs(stage))

    def _inputs(self, stage: Stage) -> list[Path]:
        """The user's own data files: replaced ones are a change."""
        directory = self.settings.dataset_path()
        if not stage.reads_dataset_dir or directory is None or self.settings.dataset == "digits":
            return []
        return sorted(path for path in directory.glob("*-ubyte.gz") if path.is_file())


def torchrun(workers: int) -> list[str]:
    """What stands before the script: so many processes of this machine."""
    set_first = ["env", *(f"{name}={value}" for name, value in TORCHRUN_ENVIRONMENT.items())]
    return [*set_first, sys.executable, *TORCHRUN, "--standalone", f"--nproc-per-node={workers}"]
