"""Where the stages run: one seam, one module for each platform."""

from pipeline.settings import Settings
from pipeline.targets.base import Target


def target_for(settings: Settings, stack: str) -> Target:
    """The target that `platform` names; each imports only what it needs."""
    if settings.platform == "local":
        from pipeline.targets.local import LocalTarget

        return LocalTarget(settings, stack)
    from pipeline.targets.kubernetes import KubernetesTarget

    return KubernetesTarget(settings, stack)
