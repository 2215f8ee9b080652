"""Open the page to draw on for the model that a stack serves, until Ctrl-C: the command behind `make play`.

python -m play STACK
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workloads"))

from cluster import cluster_of
from mnist.errors import ServerError
from mnist.inference import ServedModel
from play.answers import remedy
from play.ending import end_once
from play.forward import forwarded
from stack import ROOT, StackError, outputs

PAGE_PYTHON = ROOT / ".venv-play" / "bin" / "python"
READY_SECONDS = 5.0
IN_CLUSTER = ".svc.cluster.local"


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("stack")
    stack = options.parse_args(arguments).stack
    end_once()
    try:
        return play(stack)
    except KeyboardInterrupt:
        return 0
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def play(stack: str) -> int:
    known = outputs(stack)
    if "triton_endpoint" not in known:
        raise StackError(f"stack {stack} serves nothing: run `{remedy(stack)}`")
    with reachable(stack, known) as endpoint:
        require_answer(stack, endpoint, known["model_name"])
        if not PAGE_PYTHON.exists():
            raise StackError("the page's packages are missing: run `make play`")
        print("starting the page", flush=True)
        command = [str(PAGE_PYTHON), "-m", "play.page", f"--stack={stack}"]
        command += [f"--endpoint={endpoint}", f"--model={known['model_name']}"]
        with subprocess.Popen(command, cwd=ROOT) as page:
            try:
                return page.wait()
            finally:
                page.terminate()


@contextlib.contextmanager
def reachable(stack: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The endpoint, as it is reached from here: through kubectl where only the cluster knows its name."""
    endpoint: str = known["triton_endpoint"]
    host, _, port = endpoint.rpartition(":")
    if not host.endswith(IN_CLUSTER):
        yield endpoint
        return
    with forwarded(cluster_of(stack), host.partition(".")[0], int(port)) as endpoint_here:
        yield endpoint_here


def require_answer(stack: str, endpoint: str, model: str) -> None:
    with ServedModel(endpoint, model) as served:
        try:
            served.wait_ready(READY_SECONDS)
        except ServerError:
            raise StackError(f"{model} does not answer at {endpoint}: run `{remedy(stack)}`") from None


if __name__ == "__main__":
    sys.exit(main())
