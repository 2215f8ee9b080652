"""The seam between the pipeline and the place it runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pulumi

from pipeline.stages import Stage


class Target(Protocol):
    """A place that can run stages."""

    def add(self, stage: Stage, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Declare the resource of one stage, depending on those of the stages it needs."""
        ...

    def outputs(self) -> Mapping[str, Any]:
        """What the stack exports, once all stages are added."""
        ...


def deploy(stages: Sequence[Stage], target: Target) -> dict[str, pulumi.Resource]:
    """Declare the stages on the target: what a stage needs becomes its `depends_on`."""
    resources: dict[str, pulumi.Resource] = {}
    for stage in stages:
        resources[stage.name] = target.add(stage, [resources[need] for need in stage.needs])
    return resources
