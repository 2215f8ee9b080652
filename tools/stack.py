"""Run Pulumi on a stack of this checkout: the commands behind `make up`, `down`, `output`, `report` and `env`."""

import argparse
import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class StackError(Exception):
    """One line: what is missing and what to do."""


def environment(stack: str, root: Path = ROOT) -> dict[str, str]:
    """What Pulumi needs to keep to this checkout; what the user has set is left alone."""
    paths = [root / ".tools" / "bin", root / ".venv" / "bin"]
    settings = {"PULUMI_HOME": str(root / ".pulumi"), "PULUMI_SKIP_UPDATE_CHECK": "true", **os.environ}
    if stack == "local":
        # It has no secrets (Pulumi.local.yaml's salt is the empty passphrase's), and uses no plugin but the project's
        # own: looking for those of the installed SDKs takes the network.
        settings.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        settings["PULUMI_CONFIG_PASSPHRASE"] = ""
        settings.setdefault("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    elif "PULUMI_CONFIG_PASSPHRASE_FILE" not in settings:
        settings.setdefault("PULUMI_CONFIG_PASSPHRASE", "")
    settings["PATH"] = os.pathsep.join([*map(str, paths), os.environ.get("PATH", "")])
    return settings


def start_pulumi(stack: str, *arguments: str, **keywords: Any) -> "subprocess.Popen[bytes]":
    (ROOT / ".pulumi-state").mkdir(exist_ok=True)
    # Without the variable the CLI does not know --event-log.
    settings = {**environment(stack), "PULUMI_DEBUG_COMMANDS": "true"}
    try:
        return subprocess.Popen(["pulumi", *arguments, "--stack", stack], cwd=ROOT, env=settings, **keywords)
    except FileNotFoundError:
        raise StackError("the Pulumi CLI is missing: run `make setup`") from None


def pulumi(stack: str, *arguments: str) -> int:
    """Run the CLI in the foreground; Ctrl-C is for it to handle, this program waits for its end."""
    process = start_pulumi(stack, *arguments)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got the signal too, and needs a moment to end its stages
            continue


def ensure_stack(stack: str) -> None:
    done = pulumi_quietly(stack, "stack", "select", "--create", stack)
    if done.returncode != 0:
        raise StackError(f"stack {stack}: {done.stderr.strip().splitlines()[-1].removeprefix('error: ')}")


def pulumi_quietly(stack: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (ROOT / ".pulumi-state").mkdir(exist_ok=True)
    try:
        return subprocess.run(
            ["pulumi", *arguments], cwd=ROOT, env=environment(stack), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise StackError("the Pulumi CLI is missing: run `make setup`") from None


def outputs(stack: str) -> dict[str, Any]:
    done = pulumi_quietly(stack, "stack", "output", "--json", "--stack", stack)
    if done.returncode != 0:
        raise StackError(f"stack {stack} has no outputs: run `make up STACK={stack}`")
    values: dict[str, Any] = json.loads(done.stdout or "{}")
    return values


def up(stack: str) -> int:
    import watch  # not at the top: only `up` draws

    ensure_stack(stack)
    command = (stack, "up", "--yes", "--skip-preview")
    status = watch.watch(functools.partial(start_pulumi, *command)) if watch.is_wanted() else pulumi(*command)
    if status == 0:
        print_summary(outputs(stack))
    return status


def down(stack: str) -> int:
    if pulumi_quietly(stack, "stack", "--stack", stack).returncode != 0:
        print(f"stack {stack} does not exist: nothing to take down")
        return 0
    storage = outputs(stack).get("storage")
    status = pulumi(stack, "destroy", "--yes", "--skip-preview")
    if status == 0 and storage and Path(storage).is_dir():
        print(f"kept {storage} (mnist:keepData)")
    return status


def output(stack: str) -> int:
    endpoint = outputs(stack).get("triton_endpoint")
    if endpoint is None:
        raise StackError(f"stack {stack} serves nothing: run `make up STACK={stack}`")
    print(endpoint)
    return 0


def report(stack: str) -> int:
    path = outputs(stack).get("report")
    if path is None or not Path(path).is_file():
        raise StackError(f"stack {stack} has no report yet: run `make up STACK={stack}`")
    print(path)
    return 0


def env(stack: str) -> int:
    settings = environment(stack)
    for name in ("PATH", "PULUMI_HOME", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"):
        if name in settings and settings[name] != os.environ.get(name):  # a passphrase of the user's is not shown
            print(f"export {name}={shlex.quote(settings[name])}")
    return 0


def print_summary(values: dict[str, Any]) -> None:
    """The few figures one wants after `up`."""
    results_path = Path(values.get("storage", "")) / "results" / "latest" / "results.json"
    if "report" not in values or not results_path.is_file():
        return
    results = json.loads(results_path.read_text(encoding="utf-8"))
    single = results["load"]["single"]
    rows = {
        "accuracy": f"{results['accuracy']:.4f} on {results['test_images']:,} {results['dataset']} test images",
        "latency": f"p50 {single['p50_ms']:.2f} ms, p99 {single['p99_ms']:.2f} ms, one image a request",
        "version": f"{results['model_name']} {results['served_version']}",
        "endpoint": f"{values['triton_endpoint']} (gRPC), {values['triton_http_endpoint']} (HTTP)",
        "report": str(values["report"]),
    }
    print()
    for name, value in rows.items():
        print(f"{name:10}{value}")
    if results["dataset"] == "digits":
        print("\nTrained on scikit-learn's handwritten digits, NOT on MNIST.")


def run_command(commands: Mapping[str, Callable[[str], int]], description: str | None) -> int:
    """Run the command that the command line names on the stack it names; a `StackError` is told in one line."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("command", choices=commands)
    options.add_argument("stack")
    arguments = options.parse_args()
    try:
        return commands[arguments.command](arguments.stack)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_command({"up": up, "down": down, "output": output, "report": report, "env": env}, __doc__))
