"""What `up` shows in a real terminal: stack local with the real Pulumi, behind a pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time

from tests.checkout import Checkout, Done

QUICK = {"dataset": "digits", "epochs": 1, "batchSize": 64, "minAccuracy": "0"}
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]
ROWS, COLUMNS = 40, 120
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def up_in_a_terminal(checkout: Checkout) -> Done:
    """Run `up` to its end; all that it wrote, without what moves the cursor and colours."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    process = subprocess.Popen(
        [checkout.root / ".venv/bin/python", "tools/stack.py", "up", checkout.stack],
        cwd=checkout.root,
        env={**environment, "MNIST_DIR": "", "TERM": "xterm-256color"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    written = bytearray()
    try:
        while part := os.read(controller, 1 << 16):
            written += part
    except OSError:  # how Linux says that nobody writes to the terminal any more
        pass
    os.close(controller)
    text = CONTROL.sub("", written.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return Done(process.wait(), text)


def last_states(output: str) -> dict[str, str]:
    """The state that the table shows of each stage at the end."""
    table = output[output.rindex("prepare-data") :].splitlines()
    found = [re.search(rf"\b{stage}\s+(\w+( run)?)", "\n".join(table)) for stage in STAGES]
    return {stage: match[1] if match else "" for stage, match in zip(STAGES, found, strict=True)}


def test_every_stage_has_a_line_from_waiting_to_done(checkout: Checkout) -> None:
    checkout.configure(**QUICK)
    started = time.monotonic()
    done = up_in_a_terminal(checkout)
    seconds = time.monotonic() - started
    assert done.status == 0, done.output
    assert last_states(done.output) == dict.fromkeys(STAGES, "done"), f"at the end:\n{done.output[-3000:]}"
    for stage in STAGES:
        assert re.search(rf"· {stage} +waiting", done.output), f"{stage} must be shown before it runs"
        assert re.search(rf". {stage} +running", done.output), f"{stage} must be shown while it runs"
    assert re.search(r"train +running \d+ % .* left  loss \d", done.output), (
        "the training's progress and the time left must be shown"
    )
    assert "@ updating" not in done, "Pulumi's own display must not be mixed into it"
    for row in ("accuracy", "latency", "version", "endpoint", "report"):
        assert f"\n{row}" in done, f"the closing table lacks {row}:\n{done.output[-1500:]}"
    shown = re.search(r"8 created, (?:(\d+) min )?([\d.]+) s", done.output)
    assert shown, "how many resources, and how long it took"
    assert abs(60 * int(shown[1] or 0) + float(shown[2]) - seconds) < 10, f"it took {seconds:.0f} s: {shown[0]}"


def test_an_unchanged_run_says_so_of_every_stage(checkout: Checkout) -> None:
    done = up_in_a_terminal(checkout)
    assert done.status == 0, done.output
    assert last_states(done.output) == dict.fromkeys(STAGES, "unchanged"), f"at the end:\n{done.output[-3000:]}"
    assert "8 unchanged" in done and "\naccuracy" in done, "and the closing table is there again"


def test_a_failing_stage_tells_its_error_in_full(checkout: Checkout) -> None:
    checkout.configure(**QUICK, maxLatencyMs="0.001")
    done = up_in_a_terminal(checkout)
    assert done.status != 0, "a missed gate is no success"
    expected = dict.fromkeys(STAGES, "unchanged") | {"client": "failed", "report": "not run"}
    assert last_states(done.output) == expected, f"at the end:\n{done.output[-3000:]}"
    told = done.output.partition("Diagnostics:")[2]
    error = re.search(r"error: client: .* is above maxLatencyMs 0\.001; .*; results: (\S+)", told)
    assert error, f"the error must be told on one line, in Pulumi's words:\n{told}"
    assert os.path.isfile(error[1]), f"to its very end, the path: {error[1]}"
