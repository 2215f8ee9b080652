"""Write the diagrams of docs/architecture from what the program declares, and render every diagram there.

python tools/diagrams.py

pipeline.mmd           the stages and what each needs
resources-local.mmd    what stack local registers with Pulumi
resources-dev.mmd      what a stack on Kubernetes registers
storage.mmd            who reads and writes what; written by hand, rendered here

The text (Mermaid, https://mermaid.js.org) is what counts; each SVG beside it says of which text it is the picture.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from stack import ROOT

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "infra"))
sys.path.insert(0, str(ROOT / "workloads"))

from tests.declared import Options, declare, declare_local

from pipeline.stages import STAGES

DIAGRAMS = ROOT / "docs" / "architecture"
HEADER = "%% Made by `make diagrams` from what the program declares: change that, not this."
# What Kubernetes resources there are beside those of the default settings, by the setting that makes them.
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "trainWorkers > 1": {"trainWorkers": "2"},
    "tritonReplicas > 1": {"tritonReplicas": "2"},
    "tritonMaxReplicas": {"tritonReplicas": "2", "tritonMaxReplicas": "3"},
    "modelRepository": {"modelRepository": "s3://bucket/models"},
    "operatorsGroup": {"operatorsGroup": "operators"},
    "registryUser": {"registryUser": "me", "registryPassword": "secret"},
    "monitoring operator": {"monitoring": "operator"},
}
# What makes resources of the default settings, by what does without them.
WITHOUT: Mapping[str, Mapping[str, str]] = {
    "tritonImage slim": {"tritonImage": "ngc"},
    "monitoring annotations": {"monitoring": "operator"},
}
LOOK = {
    "theme": "neutral",
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "wrappingWidth": 400},
    "fontFamily": "sans-serif",
}
INSTALL = "npm install --global @mermaid-js/mermaid-cli"

Graph = dict[str, Options]  # by resource name, in the order of declaration


def pipeline() -> str:
    lines = ["flowchart LR", "  accTitle: The stages and what each needs"]
    for stage in STAGES:
        lines.append(_node(stage.name, f"workloads/{stage.script}", [stage.name], is_server=stage.kind == "server"))
    lines += [f"  {need} --> {stage.name}" for stage in STAGES for need in stage.needs]
    lines += [f"  {stage.name} -. calls .-> {stage.calls}" for stage in STAGES if stage.calls]
    return _text(lines)


def resources_local() -> str:
    graph = declare_local().options
    lines = ["flowchart LR", "  accTitle: What stack local registers with Pulumi"]
    lines += [_node(name, _kind(options), [name]) for name, options in graph.items()]
    return _text([*lines, *_edges(graph, graph)])


def resources_dev() -> str:
    graph, conditions = declared_dev()
    alike = _alike(graph, conditions)
    lines = ["flowchart LR", "  accTitle: What a stack on Kubernetes registers with Pulumi"]
    for name, options in graph.items():
        children = _children(graph, name)
        if children:
            lines += [f'  subgraph {name}["{_kind(options)} · {name}"]', "    direction LR"]
            lines += [f"  {_resources(graph, alike[child], conditions)}" for child in children if child in alike]
            lines.append("  end")
        elif options.parent is None:
            lines.append(_resources(graph, [name], conditions))
    return _text([*lines, "  classDef optional stroke-dasharray: 5 5", *_edges(graph, alike)])


def declared_dev() -> tuple[Graph, dict[str, str]]:
    """All that settings can make a stack on Kubernetes register; of what depends on one, the condition."""
    with pytest.MonkeyPatch.context() as patch:
        default = declare(patch).options
        every = {key: value for changes in VARIANTS.values() for key, value in changes.items()}
        together = declare(patch, None, **every).options
        added = {setting: declare(patch, None, **changes).options for setting, changes in VARIANTS.items()}
        removed = {setting: declare(patch, None, **changes).options for setting, changes in WITHOUT.items()}
    conditions: dict[str, str] = {}
    for setting, found in added.items():  # of several settings that make it, the first
        conditions = {name: setting for name in found if name not in default} | conditions
    conditions |= {name: setting for setting, found in removed.items() for name in default if name not in found}
    return {**default, **together}, conditions


def _alike(graph: Graph, conditions: Mapping[str, str]) -> dict[str, list[str]]:
    """Resources that differ by their names alone share a node: the first one's name → all of them."""
    waited_for = {needed for options in graph.values() for needed in options.depends_on}
    nodes: dict[tuple[object, ...], list[str]] = {}
    for name, options in graph.items():
        own = name if name in waited_for or options.parent is None else ""
        nodes.setdefault((options, conditions.get(name), own), []).append(name)
    return {names[0]: names for names in nodes.values()}


def _resources(graph: Graph, names: Sequence[str], conditions: Mapping[str, str]) -> str:
    condition = conditions.get(names[0])
    node = _node(names[0], _kind(graph[names[0]]), [*names, *([f"if {condition}"] if condition else [])])
    return node + (":::optional" if condition else "")


def _node(name: str, kind: str, more: Iterable[str], is_server: bool = False) -> str:
    label = "<br>".join([kind, *more])
    return f'  {name}(["{label}"])' if is_server else f'  {name}["{label}"]'


def _edges(graph: Graph, nodes: Collection[str]) -> list[str]:
    """From what comes first to what waits for it. What a box and all in it wait for is drawn once, at the box."""
    shared = {
        name: options.depends_on.intersection(*(graph[child].depends_on for child in children))
        for name, options in graph.items()
        if (children := _children(graph, name))
    }
    lines = []
    for name, options in graph.items():
        own = shared[name] if name in shared else options.depends_on - shared.get(options.parent or "", frozenset())
        if name in nodes or name in shared:
            lines += [f"  {needed} --> {name}" for needed in sorted(own, key=list(graph).index)]
    lines += [f"  {options.provider} -.-> {name}" for name, options in graph.items() if options.provider]
    return lines


def _children(graph: Graph, parent: str) -> list[str]:
    return [name for name, options in graph.items() if options.parent == parent]


def _kind(options: Options) -> str:
    """`kubernetes:core/v1:Namespace` → `Namespace`"""
    package, _, kind = options.kind.rpartition(":")
    return "Provider" if package == "pulumi:providers" else kind


def _text(lines: Iterable[str]) -> str:
    return "\n".join([HEADER, *lines]) + "\n"


GENERATED = {"pipeline.mmd": pipeline, "resources-local.mmd": resources_local, "resources-dev.mmd": resources_dev}


def stamp(text: str) -> str:
    """The comment that tells of which text, and drawn how, an SVG is the picture."""
    return f"<!-- SHA-256 of text and look: {hashlib.sha256((text + json.dumps(LOOK)).encode()).hexdigest()} -->\n"


def is_rendered(path: Path) -> bool:
    picture = path.with_suffix(".svg")
    return picture.is_file() and picture.read_text(encoding="utf-8").endswith(stamp(path.read_text(encoding="utf-8")))


def render(path: Path) -> None:
    """Draw an SVG beside the text.

    Raises:
        CalledProcessError: mermaid-cli says on standard error what it cannot draw.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    settings = {**({"PUPPETEER_EXECUTABLE_PATH": browser} if browser else {}), **os.environ}
    puppeteer = {"args": ["--no-sandbox"] if os.geteuid() == 0 else []}  # Chromium's sandbox is not for root
    picture = path.with_suffix(".svg")
    with tempfile.TemporaryDirectory() as directory:
        look, browsing = Path(directory) / "look.json", Path(directory) / "browser.json"
        look.write_text(json.dumps(LOOK))
        browsing.write_text(json.dumps(puppeteer))
        command = ["mmdc", "--quiet", "--input", str(path), "--output", str(picture), "--backgroundColor", "white"]
        command += ["--configFile", str(look), "--puppeteerConfigFile", str(browsing), "--svgId", path.stem]
        subprocess.run(command, env=settings, check=True)
    drawn = picture.read_text(encoding="utf-8").rstrip("\n")
    picture.write_text(f"{drawn}\n{stamp(path.read_text(encoding='utf-8'))}", encoding="utf-8")


def main() -> int:
    for name, make in GENERATED.items():
        (DIAGRAMS / name).write_text(make(), encoding="utf-8")
    stale = [path for path in sorted(DIAGRAMS.glob("*.mmd")) if not is_rendered(path)]
    if stale and shutil.which("mmdc") is None:
        names = ", ".join(path.name for path in stale)
        print(f"error: {names} cannot be rendered: mmdc is missing, `{INSTALL}` has it", file=sys.stderr)
        return 1
    for path in stale:
        render(path)
        print(path.with_suffix(".svg").relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
