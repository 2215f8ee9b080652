"""The pipeline's order, declared once and without Pulumi; targets turn `needs` into `depends_on`.

To change what a stage does, edit its script in workloads/; to change the order, or what a stage is told, edit STAGES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.settings import Settings

Arguments = dict[str, str]  # command line options, without the dashes
# How a stage of several workers is started; when one of them dies, all start again and go on from the checkpoint.
TORCHRUN = ("-m", "torch.distributed.run", "--max-restarts=3")
# A restart shall find each other in a new store: in the old one are the addresses of those that died, and both sides
# may then wait for the other. https://github.com/pytorch/pytorch/issues/135712
TORCHRUN_ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the pipeline: a job that runs to completion, or a server that stays."""

    name: str
    script: str  # below workloads/
    needs: tuple[str, ...]
    arguments: Callable[["Settings"], Arguments]
    kind: Literal["job", "server"] = "job"
    calls: str | None = None  # the server stage whose endpoint it is told
    other_code: tuple[str, ...] = ()  # files below workloads/ that it runs but does not import
    reads_dataset_dir: bool = False
    workers: Callable[["Settings"], int] = lambda _: 1  # processes that share its work, started by torchrun
    retries: int = 2  # where nobody else looks after it; a wrong setting fails the same way again, soon
    produces: tuple[str, ...] = ()  # files below the storage without which it counts as not done


def _prepare(settings: "Settings") -> Arguments:
    directory = settings.dataset_path()
    return {
        "dataset": settings.dataset,
        **({"dataset-dir": str(directory)} if directory else {}),
        **({"dataset-url": settings.dataset_url} if settings.dataset_url else {}),
    }


def _train(settings: "Settings") -> Arguments:
    return {
        "epochs": str(settings.epochs),
        "batch-size": str(settings.batch_size),
        "learning-rate": repr(settings.learning_rate),
        "seed": str(settings.seed),
        "target-accuracy": repr(settings.target_accuracy),
        "checkpoint-every": str(settings.checkpoint_every),
        "accelerator": settings.accelerator,
    }


def _export(settings: "Settings") -> Arguments:
    return {
        "model-name": settings.model_name,
        "min-accuracy": repr(settings.min_accuracy),
        "precision": settings.precision,
        "keep-versions": str(settings.keep_versions),
        "served-version": str(settings.served_version),
        "serving-cpus": str(settings.triton_cpus),
        "queue-delay-us": str(settings.queue_delay_microseconds),
    }


def _triton(settings: "Settings") -> Arguments:
    return {"model-name": settings.model_name}


def _client(settings: "Settings") -> Arguments:
    return {
        "model-name": settings.model_name,
        "min-accuracy": repr(settings.min_accuracy),
        "max-latency-ms": repr(settings.max_latency_ms),
        "auto-rollback": str(settings.auto_rollback).lower(),
    }


def _report(settings: "Settings") -> Arguments:
    return {"model-name": settings.model_name}


STAGES: tuple[Stage, ...] = (
    Stage(
        name="prepare-data",
        script="prepare.py",
        needs=(),
        arguments=_prepare,
        reads_dataset_dir=True,
        produces=("data/mnist/dataset.json",),
    ),
    Stage(
        name="train",
        script="train.py",
        needs=("prepare-data",),
        arguments=_train,
        workers=lambda settings: settings.train_workers,
        produces=("checkpoints/best_model.pth",),
    ),
    Stage(
        name="export",
        script="export.py",
        needs=("train",),
        arguments=_export,
        produces=("models/{model}/config.pbtxt",),
    ),
    Stage(
        name="triton",
        script="serving/launch.py",
        needs=("export",),
        arguments=_triton,
        kind="server",
        other_code=("serving/onnxruntime/model.py",),
    ),
    Stage(
        name="client",
        script="client.py",
        needs=("triton",),
        arguments=_client,
        calls="triton",
        retries=0,  # a check that failed has failed, and may have gone back to another version
        produces=("results/latest/results.json",),
    ),
    Stage(
        name="report",
        script="report.py",
        needs=("client",),
        arguments=_report,
        other_code=("reporting/report.html.j2",),
        produces=("results/latest/report.html",),
    ),
)


def stages_through(last: str, stages: Sequence[Stage] = STAGES) -> tuple[Stage, ...]:
    """The stages up to and including `last`, in an order that respects `needs`.

    Raises:
        KeyError: no stage is named `last`.
    """
    by_name = {stage.name: stage for stage in stages}
    chosen: dict[str, Stage] = {}

    def add(name: str) -> None:
        for need in by_name[name].needs:
            if need not in chosen:
                add(need)
        chosen[name] = by_name[name]

    add(last)
    return tuple(chosen.values())
