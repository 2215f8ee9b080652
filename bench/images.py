"""The images' sizes and layers, where Docker has them."""

import json
import re
import shutil
import subprocess
from typing import Any

from bench.figures import add_round
from bench.prepared import Say
from bench.results import Recorder, Results

NAMES = ("tr-ex-job", "client-job", "triton")
MEGABYTE = 1e6


def run(short: bool, say: Say) -> Results:
    recorder = Recorder("images", "python -m bench images")
    for name in NAMES:
        reference = _reference(name)
        if reference is None:
            recorder.missing[name] = "Docker has no such image here"
            continue
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", reference))
        add_round(recorder.rounds, name, {"megabytes": size / MEGABYTE})
        recorder.facts[name] = layers(_docker("history", "--no-trunc", "--human=false", "--format=json", reference))
        say(f"images: {name} {size / MEGABYTE:,.0f} MB")
    return recorder.results()


def layers(history: str) -> list[dict[str, Any]]:
    """Those with files in them, the topmost last: what Docker says of them, one JSON object a line."""
    entries = [json.loads(line) for line in history.splitlines()]
    return [
        {"megabytes": round(int(entry["Size"]) / MEGABYTE, 3), "by": _told(entry["CreatedBy"])}
        for entry in reversed(entries)
        if int(entry["Size"]) > 0
    ]


def _told(created_by: str) -> str:
    """The instruction, short; without what the build was told about networks and hosts."""
    text = re.sub(r"\|\d+ (\S+=\S* )*|/bin/sh -c |#\(nop\)|# buildkit", "", created_by)
    return " ".join(text.split())[:80]


def _reference(name: str) -> str | None:
    """Whatever the registry it was tagged for."""
    if shutil.which("docker") is None:
        return None
    done = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True, check=False
    )
    tagged = [line for line in done.stdout.splitlines() if line.endswith(f"/{name}:latest")]
    return tagged[0] if tagged else None


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()
