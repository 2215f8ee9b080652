"""List the published versions of a stack's model, and which one is served.

python tools/versions.py versions STACK
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster import cluster_of, fetch, inspector
from stack import ROOT, StackError, outputs, run_command

sys.path.insert(0, str(ROOT / "workloads"))

from mnist.errors import PipelineError
from mnist.repository import MODEL_FILE, PREDICTIONS_FILE, ModelRepository

COLUMNS = ("version", "exported", "accuracy", "precision", "dataset", "source", "")


def versions(stack: str) -> int:
    known = outputs(stack)
    if "model_name" not in known:
        raise StackError(f"stack {stack} has no model: run `make up STACK={stack}`")
    with _models(stack, known["storage"], on_cluster="namespace" in known) as models:
        repository = ModelRepository(models, known["model_name"])
        if not repository.versions():
            raise StackError(f"stack {stack} has published no version: run `make up STACK={stack}`")
        try:
            _console().print(table(repository))
        except PipelineError as error:
            raise StackError(str(error)) from None
    return 0


@contextlib.contextmanager
def _models(stack: str, storage: str, on_cluster: bool) -> Iterator[Path]:
    """storage/models, or what this needs of it, fetched out of the claim."""
    if not on_cluster:
        yield Path(storage) / "models"
        return
    cluster = cluster_of(stack)
    with tempfile.TemporaryDirectory() as directory, inspector(cluster, storage):
        fetch(cluster, "models", Path(directory), without=(MODEL_FILE, PREDICTIONS_FILE))
        yield Path(directory)


def table(repository: ModelRepository) -> Table:
    """A row a version, newest first."""
    rows = Table(*COLUMNS, title=repository.name, title_justify="left", box=None, pad_edge=False)
    served, rejected = repository.served(), repository.rejected()
    for version in reversed(repository.versions()):
        metadata = repository.metadata(version)
        state = "served" if version == served else "rolled back" if version in rejected else ""
        figures = (metadata.export_date, f"{metadata.accuracy:.4f}", metadata.precision, metadata.dataset)
        rows.add_row(str(version), *figures, metadata.source_model, state, style="bold" if state == "served" else None)
    return rows


def _console() -> Console:
    """As wide as the terminal; where there is none, wide enough that nothing is cut off for a program."""
    return Console(width=None if sys.stdout.isatty() else max(200, shutil.get_terminal_size().columns), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command({"versions": versions}, __doc__))
