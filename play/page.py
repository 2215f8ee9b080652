"""The page: what is drawn goes to the served model, its answer comes back. Needs requirements-play.txt.

python -m play.page --endpoint HOST:PORT --model NAME [--stack STACK]
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workloads"))

from mnist.inference import ServedModel
from play.answers import Answers
from play.ending import end_once

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"  # whoever reaches the page may use it: it is for this machine only
PAD = '<canvas width="480" height="480"></canvas><button>Clear</button>'
PATIENCE_SECONDS = 2.0  # to go on asking where no server is: somebody waits for the answer
# gradio would count its users, and may look for models on the network; nothing here needs another machine.
KEPT_HERE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--endpoint", required=True, help="of Triton's gRPC")
    options.add_argument("--model", required=True)
    options.add_argument("--stack", default="local", help="whose model it is; named where no answer comes")
    chosen = options.parse_args(arguments)
    end_once()
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # gradio asks whether its own page is there
    with (
        contextlib.suppress(KeyboardInterrupt),
        ServedModel(chosen.endpoint, chosen.model, patience=PATIENCE_SECONDS) as model,
        served(Answers(model, chosen.stack)) as address,
    ):
        print(f"draw at {address} (Ctrl-C ends it)", flush=True)
        signal.pause()
    return 0


@contextlib.contextmanager
def served(answers: Answers) -> Iterator[str]:
    """The page, on the first free port from 7860 on; yields its address."""
    with tempfile.TemporaryDirectory(prefix="mnist-triton-") as files:
        os.environ.update(KEPT_HERE, GRADIO_TEMP_DIR=files)
        import gradio as gr  # takes seconds, and reads the variables

        with gr.Blocks(title="Draw a digit", analytics_enabled=False) as page:
            gr.Markdown(f"# Draw a digit\nand see what `{answers.model.model}` on Triton makes of it.")
            with gr.Row(elem_id="paper"):
                with gr.Column():
                    # gradio's Sketchpad wants a tool chosen first, and has more of them than a digit needs.
                    pad = gr.HTML(
                        value="",
                        html_template=PAD,
                        js_on_load=(HERE / "pad.js").read_text(encoding="utf-8"),
                        elem_id="pad",
                    )
                with gr.Column():
                    answer = gr.HTML(answers.none(), elem_id="answer")
            # The last drawing counts, also where a stroke comes before the answer to the one before.
            how = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
            pad.input(answers.to, pad, answer, **how)
        _, address, _ = page.launch(
            server_name=HOST,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            # The machine's own fonts: others would have to be fetched.
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=HERE / "page.css",
        )
        yield address


if __name__ == "__main__":
    sys.exit(main())
