"""What to go back to when a served version fails its check, and going back."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from mnist.errors import ModelError, ServerError
from mnist.inference import ServedModel
from mnist.repository import ModelRepository
from mnist.storage import LATEST, RESULTS_FILE, Storage

Results = Mapping[str, Any]  # results.json of one run
RESTART_SECONDS = 120.0


def last_good(
    storage: Storage, repository: ModelRepository, failed: int, passes: Callable[[Results], bool]
) -> int | None:
    """The version that passed a check last, is still published as it was then, and would pass by today's gates.

    Args:
        failed: The version that did not pass; never the answer.
        passes: Whether results meet the gates of now.
    """
    runs = [path for path in storage.results.glob(f"*/{RESULTS_FILE}") if path.parent.name != LATEST]
    for path in sorted(runs, reverse=True):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            version = int(results["served_version"])
            same_model = repository.metadata(version).sha256 == results["model"]["sha256"]
            if version != failed and same_model and results["model_name"] == repository.name and passes(results):
                return version
        except (OSError, ValueError, KeyError, TypeError, ModelError):
            continue  # results of another kind, or of a version that is gone
    return None


def roll_back(repository: ModelRepository, failed: int, version: int, model: ServedModel) -> None:
    """Have the running server serve `version` instead of the failed one, and wait until it answers with it.

    Raises:
        ServerError: it does not, in time.
        ModelError, StorageError: the repository cannot be changed.
    """
    repository.roll_back(failed, version)
    waiting = Retrying(
        stop=stop_after_delay(RESTART_SECONDS),
        wait=wait_fixed(0.2),
        retry=retry_if_exception_type(ServerError) | retry_if_result(lambda served: served != version),
    )
    try:
        waiting(model.version)
    except RetryError:
        raise ServerError(
            f"{repository.name} at {model.endpoint} does not serve version {version} after {RESTART_SECONDS:.0f} s"
        ) from None
    model.wait_ready(RESTART_SECONDS)
