"""Stack local with the real Pulumi and the real Triton: up, unchanged up, changes, faults, down.

The tests of this file run in order on one stack: each goes on from what the one before left.
"""

import contextlib
import json
import socket
import urllib.request

import psutil
import pytest
from tests.checkout import Checkout, interrupt, wait_until
from tests.support import gone

from pipeline.stages import STAGES as PIPELINE

# Small enough to train in seconds, good enough to pass a gate.
QUICK = {"dataset": "digits", "epochs": 4, "batchSize": 64, "minAccuracy": "0.8", "keepData": "true"}
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]


def stages_run_again(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [stage for stage in STAGES if before[stage] != after[stage]]


def assert_failed_cleanly(output: str, *texts: str) -> None:
    for text in texts:
        assert text in output, f"the error must say {text!r}:\n{output}"
    assert "Traceback" not in output, f"a user's fault must not show a traceback:\n{output}"


def test_a_wrong_setting_is_refused_before_anything_is_created(checkout: Checkout) -> None:
    checkout.configure(**QUICK, minAcuracy="0.9", maxLatencyMs="fast")
    done = checkout.run("up")
    assert done.status != 0, "a misspelt setting must fail the run"
    assert_failed_cleanly(
        done.output, "mnist:minAcuracy", "did you mean mnist:minAccuracy", "mnist:maxLatencyMs is 'fast'"
    )
    assert not checkout.storage.exists(), "nothing may be created before the settings are known to be right"


@pytest.mark.parametrize("stage", ["prepare-data", "export"])
def test_run_through_stops_after_the_named_stage(checkout: Checkout, stage: str) -> None:
    checkout.configure(**QUICK, runThrough=stage)
    done = checkout.run("up")
    assert done.status == 0, done.output
    assert set(checkout.runs()) == set(STAGES[: STAGES.index(stage) + 1]), "only the stages up to the named one may run"
    if stage == "export":
        for text in ("step ", "loss", "images/s", "left", "test accuracy", "published version 1"):
            assert text in done, f"what the stages print must appear live; {text!r} is missing:\n{done.output}"


def test_raising_run_through_serves_and_verifies_without_training_again(checkout: Checkout) -> None:
    before = checkout.runs()
    checkout.configure(**QUICK)
    done = checkout.run("up")
    assert done.status == 0, done.output
    after = checkout.runs()
    assert {name: after[name] for name in before} == before, "finished stages must not run again"
    for row in ("accuracy", "latency", "version", "endpoint", "report"):
        assert f"\n{row}" in done, f"the closing table lacks {row}:\n{done.output}"
    results = checkout.results()
    assert results["verdict"] == "passed", results["verdict"]
    assert results["equal_to_pytorch"] == results["test_images"] == 359, "the served model must repeat PyTorch"
    report = (checkout.storage / "results/latest/report.html").read_text()
    assert "Confusion matrix" in report, "the report must be complete"


def test_the_endpoint_is_printed_alone_and_answers(checkout: Checkout) -> None:
    endpoint = checkout.run("output")
    assert endpoint.output.count("\n") == 1, f"nothing but the endpoint may be printed: {endpoint.output!r}"
    plain = checkout.pulumi("stack", "output", "triton_endpoint")
    assert plain.output == endpoint.output, "make output and pulumi stack output must agree"
    http = checkout.pulumi("stack", "output", "triton_http_endpoint").output.strip()
    with urllib.request.urlopen(f"http://{http}/v2/models/resnet18_mnist/versions/1/ready", timeout=5) as answer:
        assert answer.status == 200, "the model must be ready over HTTP"
    metrics = checkout.pulumi("stack", "output", "triton_metrics_endpoint").output.strip()
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
        assert b"nv_inference_request_success" in answer.read(), "the metrics must be served"


def test_an_unchanged_up_changes_nothing(checkout: Checkout) -> None:
    before = checkout.runs()
    done = checkout.run("up")
    assert done.status == 0, done.output
    assert "8 unchanged" in done, f"all resources must be unchanged:\n{done.output}"
    assert checkout.runs() == before, "no stage may run again"


def test_a_change_of_the_client_runs_only_the_client_and_the_report(checkout: Checkout) -> None:
    before = checkout.runs()
    checkout.edit("workloads/client.py", lambda code: code + "# changed\n")
    assert checkout.run("up").status == 0, "the changed client must pass"
    assert stages_run_again(before, checkout.runs()) == ["client", "report"], "nothing before the client may run again"


def test_a_change_of_the_training_runs_it_and_all_after_it(checkout: Checkout) -> None:
    before = checkout.runs()
    checkout.configure(**QUICK, seed=2)
    done = checkout.run("up")
    assert done.status == 0, done.output
    assert stages_run_again(before, checkout.runs()) == STAGES[1:], "all but prepare-data must run again"
    verdict = checkout.events("export")[-1]["reason"]
    assert verdict in done, f"the export must say what it published, or why nothing: {verdict}\n{done.output}"


def test_a_killed_triton_is_started_again_and_verified_by_the_next_up(checkout: Checkout) -> None:
    before = checkout.runs()
    pid = int(checkout.resources()["triton"]["pid"])
    launcher = psutil.Process(pid)
    launcher.kill()
    assert gone([launcher]) == [], "the killed one is gone"
    assert checkout.run("up").status == 0, "the next up must start Triton again"
    assert stages_run_again(before, checkout.runs()) == ["triton", "client", "report"], "and verify it, no more"


def test_a_latency_gate_that_is_not_met_fails_up_and_keeps_the_results(checkout: Checkout) -> None:
    runs = len(list((checkout.storage / "results").iterdir()))
    checkout.configure(**QUICK, seed=2, maxLatencyMs="0.001")
    done = checkout.run("up")
    assert done.status != 0, "p99 above maxLatencyMs must fail the run"
    assert_failed_cleanly(done.output, "p99 latency", "is above maxLatencyMs 0.001", "results.json")
    assert len(list((checkout.storage / "results").iterdir())) == runs + 1, "what was measured must be kept"
    checkout.configure(**QUICK, seed=2)
    assert checkout.run("up").status == 0, "after the gate is set right, up must go on"


def test_a_damaged_model_is_not_served(checkout: Checkout) -> None:
    version = checkout.results()["served_version"]
    model = checkout.storage / f"models/resnet18_mnist/{version}/model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    psutil.Process(int(checkout.resources()["triton"]["pid"])).kill()
    done = checkout.run("up")
    assert done.status != 0, "a damaged model must fail the run"
    assert_failed_cleanly(done.output, str(model), "is damaged")
    model.write_bytes(whole)
    assert checkout.run("up").status == 0, "with the model restored, up must go on"


def test_ctrl_c_leaves_no_process_and_the_next_up_resumes(checkout: Checkout) -> None:
    checkout.configure(**QUICK | {"epochs": 8}, seed=4, checkpointEvery=5)
    log = checkout.storage / "logs/train.log"
    seen = len(log.read_text().splitlines())
    process = checkout.start("up")
    wait_until(lambda: log.read_text().count('"progress"', 0) and _new_progress(checkout, seen), 600, "training runs")
    interrupt(process)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, "an interrupted up is not a success"
    assert_failed_cleanly(output, "interrupted")
    scripts = [stage.script for stage in PIPELINE if stage.kind == "job"]  # Triton goes on
    lines = [" ".join(process.info["cmdline"] or []) for process in checkout.processes()]
    stray = [line for line in lines if any(f"workloads/{script}" in line for script in scripts)]
    assert not stray, f"Ctrl-C must leave no stage running: {stray}"
    done = checkout.run("up")
    assert done.status == 0, done.output
    assert "going on at step" in done, f"the next up must resume the training:\n{done.output}"


def _new_progress(checkout: Checkout, seen: int) -> bool:
    return any(event["event"] == "progress" for event in checkout.events("train")[seen:])


def test_a_killed_pulumi_leaves_no_stage_running_and_damaged_data_are_named(checkout: Checkout) -> None:
    checkout.configure(**QUICK | {"epochs": 40}, seed=5)
    seen = len(checkout.events("train"))
    process = checkout.start("up")
    wait_until(lambda: _new_progress(checkout, seen), 600, "training runs")
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one may end because of another
            if "language" in " ".join(child.cmdline()) or child.name() == "pulumi":
                child.kill()  # the engine and the program's host, not the provider and its stage
    process.communicate(timeout=60)
    wait_until(lambda: not _training(checkout), 60, "the training ends when nobody is left to watch it")
    checkout.pulumi("cancel", "--yes")
    checkout.configure(**QUICK, seed=5)
    images = checkout.storage / "data/mnist/train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:5000])
    done = checkout.run("up")
    assert done.status != 0, "training on a truncated file must fail"
    assert_failed_cleanly(done.output, str(images), "damaged or truncated")
    (checkout.storage / "data/mnist/dataset.json").unlink()
    assert checkout.run("up").status == 0, "preparing the data again must mend it"


def _training(checkout: Checkout) -> list[psutil.Process]:
    found = checkout.processes()
    return [process for process in found if any(part.endswith("train.py") for part in process.info["cmdline"] or [])]


def test_taken_ports_are_said_and_avoided(checkout: Checkout) -> None:
    ports = checkout.resources()["triton"]["ports"]
    assert checkout.run("down").status == 0, "down must succeed"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", int(ports["grpc"])))
        taken.listen()
        done = checkout.run("up")
        assert done.status == 0, done.output
        assert "are taken, using" in done, f"the other ports must be said:\n{done.output}"
        endpoint = checkout.run("output").output.strip()
        assert endpoint != f"127.0.0.1:{int(ports['grpc'])}", "the endpoint must name the port that is served"


def test_kept_data_are_used_again_and_the_served_version_stays(checkout: Checkout) -> None:
    """The run before came after a `down` that kept the storage: its model was published already."""
    exports = [event for event in checkout.events("export") if event["event"] == "finished"]
    assert not exports[-1]["published"], "a model that is not better must not become a version"
    assert exports[-1]["served_version"] == exports[-2]["served_version"], "the served version must stay"


def test_down_stops_everything_and_removes_the_storage(checkout: Checkout) -> None:
    checkout.configure(**QUICK | {"keepData": "false"}, seed=5)
    assert checkout.run("up").status == 0, "the setting must be taken over"
    done = checkout.run("down")
    assert done.status == 0, done.output
    assert not checkout.processes(), f"down must leave nothing running: {checkout.processes()}"
    assert not checkout.storage.exists(), "without keepData, down must remove the storage"
    state = json.loads(checkout.pulumi("stack", "export").output)
    assert not state["deployment"].get("resources"), "the state must be empty"
