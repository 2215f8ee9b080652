"""The diagrams of docs/architecture, and the tables beside them, show what the program declares: no more, no less."""

import ast
import dataclasses
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic.alias_generators import to_camel

import diagrams
from mnist.repository import Metadata, ServingConfig, render_config
from mnist.storage import Storage
from pipeline.settings import Settings
from pipeline.stages import STAGES, Stage
from tests.declared import Declared, Options, declare, declare_local
from tests.unit.drawing import Drawing, read

ROOT = Path(__file__).resolve().parents[2]
PAGE = (diagrams.DIAGRAMS / "README.md").read_text(encoding="utf-8")
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(diagrams.DIAGRAMS.glob("*.mmd"))}
ALL_SETTINGS = {key: value for changes in diagrams.VARIANTS.values() for key, value in changes.items()}
REDRAW = "run `make diagrams`"
# Of the settings that may change which resources there are, those with named values.
CHOICES = [
    (to_camel(name), value)
    for name, field in Settings.model_fields.items()
    if get_origin(field.annotation) is Literal and name not in ("platform", "dataset", "precision")
    for value in get_args(field.annotation)
]


@pytest.fixture(scope="module")
def dev() -> Declared:
    """With every setting that adds a resource."""
    with pytest.MonkeyPatch.context() as patch:
        return declare(patch, None, **ALL_SETTINGS)


@pytest.fixture(scope="module")
def everything(dev: Declared) -> dict[str, Options]:
    """And what they take the place of."""
    with pytest.MonkeyPatch.context() as patch:
        return {**declare(patch).options, **dev.options}


def differences(drawing: Drawing, declared: dict[str, Options]) -> list[str]:
    """In what the drawing is not what is declared."""
    found = [f"{name} is drawn, but not declared" for name in drawing.kinds if name not in declared]
    for name, options in declared.items():
        if name not in drawing.kinds:
            found.append(f"{name} is declared, but not drawn")
            continue
        for what, is_drawn, is_declared in (
            ("kind", drawing.kinds[name], options.kind.rpartition(":")[2]),
            ("box", drawing.boxes[name], options.parent),
            ("depends_on", drawing.waits(name), set(options.depends_on)),
            ("provider", {earlier for earlier, later in drawing.dotted if later == name}, {options.provider} - {None}),
        ):
            if is_drawn != is_declared and options.kind != "pulumi:providers:kubernetes":
                found.append(f"{name}: {what} is drawn as {is_drawn}, declared as {is_declared}")
    return found


@pytest.mark.parametrize("name", diagrams.GENERATED)
def test_a_diagram_is_what_the_program_declares(name: str) -> None:
    assert diagrams.GENERATED[name]() == TEXTS[Path(name).stem], f"{name} is out of date: {REDRAW}"


@pytest.mark.parametrize("path", sorted(diagrams.DIAGRAMS.glob("*.mmd")), ids=lambda path: path.stem)
def test_a_picture_is_that_of_the_text_beside_it(path: Path) -> None:
    assert diagrams.is_rendered(path), f"{path.with_suffix('.svg').name} is out of date: {REDRAW}"


def test_the_pipeline_is_drawn_as_the_stages_are_declared() -> None:
    drawing = read(TEXTS["pipeline"])
    assert drawing.kinds == {stage.name: f"workloads/{stage.script}" for stage in STAGES}, REDRAW
    assert drawing.arrows == {(need, stage.name) for stage in STAGES for need in stage.needs}, REDRAW
    assert drawing.dotted == {(stage.name, stage.calls) for stage in STAGES if stage.calls}, REDRAW


def test_stack_local_is_drawn_as_it_is_declared() -> None:
    assert differences(read(TEXTS["resources-local"]), declare_local().options) == [], REDRAW


def test_a_stack_on_kubernetes_is_drawn_as_it_is_declared(everything: dict[str, Options]) -> None:
    assert differences(read(TEXTS["resources-dev"]), everything) == [], REDRAW


def test_what_is_declared_is_what_pulumi_gets_to_know(dev: Declared) -> None:
    """The options are taken down before Pulumi resolves them; so that they are not read wrongly, its own view."""
    assert set(dev.options) == set(dev.types), "every resource is registered"
    for name, options in dev.options.items():
        resources = {needed: diagrams._children(dev.options, needed) or [needed] for needed in options.depends_on}
        resolved = {child for children in resources.values() for child in children}
        assert dev.dependencies[name] >= resolved, f"{name} waits for what is drawn"


@pytest.mark.parametrize("changes", diagrams.VARIANTS.values(), ids=list(diagrams.VARIANTS))
def test_what_a_setting_adds_is_drawn_with_that_setting(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    conditions = read(TEXTS["resources-dev"]).conditions
    graph = declare(monkeypatch, None, **changes).options
    added = {name for name in graph if not diagrams._children(graph, name)} - set(declare(monkeypatch).options)
    assert added, "a setting that adds nothing has no place here"
    for name in added:
        assert diagrams.VARIANTS[conditions[name]].items() <= changes.items(), f"{name}: the condition that makes it"


@pytest.mark.parametrize("stack", ["local", "dev"])
def test_an_arrow_or_a_resource_more_or_less_is_noticed(stack: str, everything: dict[str, Options]) -> None:
    """So that the tests above cannot pass on anything."""
    declared = declare_local().options if stack == "local" else everything
    lines = TEXTS[f"resources-{stack}"].splitlines()
    arrows = [line for line in lines if "-->" in line]
    assert len(arrows) >= 10, "the loop below has something to do"
    for arrow in arrows:
        assert differences(read("\n".join(line for line in lines if line != arrow)), declared), f"without {arrow}"
    for more in ("  prepare-data --> report", '  more["Job<br>more"]'):
        assert differences(read("\n".join([*lines, more])), declared), f"with {more}"
    for name in declared:
        others = {other: options for other, options in declared.items() if other != name}
        assert differences(read("\n".join(lines)), others), f"{name} is not declared any more"


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES if stage.needs])
def test_a_need_that_is_taken_away_is_noticed(
    monkeypatch: pytest.MonkeyPatch, everything: dict[str, Options], stage: str
) -> None:
    cut: tuple[Stage, ...] = tuple(replace(entry, needs=()) if entry.name == stage else entry for entry in STAGES)
    for name, declared in (
        ("resources-local", declare_local(cut).options),
        ("resources-dev", {**everything, **declare(monkeypatch, cut, **ALL_SETTINGS).options}),
    ):
        [difference, *_] = differences(read(TEXTS[name]), declared)
        assert difference.startswith(f"{stage}: depends_on is drawn"), f"{name} still shows what {stage} needed"


@pytest.mark.parametrize(("setting", "value"), CHOICES)
def test_no_choice_of_a_setting_makes_a_resource_that_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    needed = {"tritonImage": "ngc"} if value == "nvidia" else {}
    undrawn = set(declare(monkeypatch, None, **needed, **{setting: value}).options) - set(
        read(TEXTS["resources-dev"]).kinds
    )
    assert undrawn == set(), "add the setting to VARIANTS in tools/diagrams.py, then draw"


def test_every_kind_of_resource_in_the_code_is_drawn() -> None:
    """So that none hides behind a setting that nobody drew."""
    kinds = set(read(TEXTS["resources-dev"]).kinds.values())
    for path in sorted((ROOT / "infra" / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            *module, kind = ast.unparse(node.func).split(".")
            if module[0] in ("k8s", "docker") and not kind.endswith("Args") and kind[0].isupper():
                assert kind in kinds, f"{path.name} makes a {kind}: add its setting to VARIANTS in tools/diagrams.py"


@pytest.mark.parametrize("stack", ["local", "dev"])
def test_every_resource_is_specified_once_with_its_kind_and_timeouts(
    stack: str, everything: dict[str, Options]
) -> None:
    declared = declare_local().options if stack == "local" else everything
    rows = table(PAGE.split("## Stack local")[1].split("## A stack on Kubernetes")[stack == "dev"])
    for name, options in declared.items():
        fitting = [row for row in rows if row[0] == name and row[1] in read(TEXTS[f"resources-{stack}"]).kinds[name]]
        fitting = fitting or [row for row in rows if re.fullmatch(re.sub(r"<\w+>", "[a-z-]+", row[0]), name)]
        fitting = [row for row in fitting if row[1] == read(TEXTS[f"resources-{stack}"]).kinds[name]]
        assert len(fitting) == 1, f"{name} must have one row of its kind: {fitting}"
        timeouts = ", ".join(f"{key} {value}" for key, value in sorted(options.timeouts, key=order)) or "–"
        assert fitting[0][4] == timeouts, f"{name}: as declared"
        assert fitting[0][2] and fitting[0][3], f"{name}: what it is for, and how it is secured"


def order(timeout: tuple[str, str]) -> int:
    return ("create", "update", "delete").index(timeout[0])


def table(text: str) -> list[list[str]]:
    """The rows of five cells whose first is a resource's name."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    return [[row[0].strip("`"), *row[1:]] for row in rows if len(row) == 5 and row[0].startswith("`")]


def test_the_storages_diagram_shows_every_stage_and_folder_and_what_stages_produce() -> None:
    drawing = read(TEXTS["storage"])
    folders = {path.relative_to("/s").parts[0] for path in storage_paths()}
    assert set(drawing.kinds) == {stage.name for stage in STAGES} | folders, "all of them"
    for stage in STAGES:
        for file in stage.produces:
            assert (stage.name, file.partition("/")[0]) in drawing.arrows, f"{stage.name} writes {file}"


def storage_paths() -> list[Path]:
    storage = Storage(Path("/s"))
    return [storage.data, storage.checkpoints, storage.logs, storage.models, storage.results]


def test_the_pages_configuration_is_the_one_that_is_written() -> None:
    [shown] = re.findall(r"```protobuf\n(.*?)```", PAGE, re.DOTALL)
    assert shown == render_config("resnet18_mnist", None, ServingConfig(cpus=2)), "as Triton reads it"


def test_the_pages_metadata_are_those_that_are_written() -> None:
    section = PAGE.split("| field | meaning |")[1].split("\n\n")[0]
    named = [name for row in section.splitlines()[2:] for name in re.findall(r"\w+", row.split("|")[1])]
    assert named == [field.name for field in dataclasses.fields(Metadata)], "every field, in order"


def test_without_mermaid_the_tool_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(diagrams, "DIAGRAMS", tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert diagrams.main() == 1, "nothing was rendered"
    assert (tmp_path / "resources-dev.mmd").read_text() == TEXTS["resources-dev"], "the text needs no tool"
    assert "mmdc is missing, `npm install --global @mermaid-js/mermaid-cli` has it" in capsys.readouterr().err
