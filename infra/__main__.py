"""The program that `pulumi up` runs: read the settings, declare the pipeline on its target, export its outputs."""

import os
import signal
import sys
from types import FrameType

import pulumi
from pulumi.runtime.config import get_config_env

from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings
from pipeline.stages import stages_through
from pipeline.targets import target_for
from pipeline.targets.base import deploy


def main() -> None:
    settings = load_settings(get_config_env(), os.environ)
    target = target_for(settings, pulumi.get_stack())
    deploy(stages_through(settings.run_through), target)
    for name, value in target.outputs().items():
        pulumi.export(name, value)


def _stop_quietly(_signal: int, _frame: FrameType | None) -> None:
    """Pulumi interrupts the program once a resource failed; its message says why, a traceback here would bury it."""
    os._exit(130)


signal.signal(signal.SIGINT, _stop_quietly)
try:
    main()
except ConfigurationError as error:
    pulumi.log.error(str(error))
    sys.exit(1)
