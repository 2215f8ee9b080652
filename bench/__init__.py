"""The benchmarks: this project and what people would use instead, side by side. `make bench` runs them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("infra", "workloads", "tools") if str(ROOT / name) not in sys.path]
