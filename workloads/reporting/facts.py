"""What the tables of the report say."""

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str]
Stage = dict[str, Any]  # name, seconds (None: unknown), share of the longest in %, outcome


def stages(results: Mapping[str, Any], client: Mapping[str, Any] | None) -> list[Stage]:
    """What each stage did when it last ran."""
    triton = {"seconds": results["waited_seconds"]}  # since the client asked
    finished = {**results["stages"], "triton": triton, "client": client}
    longest = max((end["seconds"] for end in finished.values() if end), default=0.0) or 1.0
    return [
        {
            "name": name,
            "seconds": end["seconds"] if end else None,
            "share": round(100 * end["seconds"] / longest, 1) if end else 0,
            "outcome": _outcome(name, end) if end else "no run ended well",
        }
        for name, end in finished.items()
    ]


def _outcome(stage: str, end: Mapping[str, Any]) -> str:
    if stage == "prepare-data":
        return f"{end['dataset']}, {end['train_images']:,} + {end['test_images']:,} images"
    if stage == "train":
        return f"test accuracy {end['accuracy']:.4f}, {end['images_per_second']:,.0f} images/s"
    if stage == "export":
        return str(end["reason"])
    return "ready (seconds the client had to wait)" if stage == "triton" else f"served accuracy {end['accuracy']:.4f}"


def data_set(results: Mapping[str, Any]) -> list[Row]:
    prepare, train = results["stages"].get("prepare-data") or {}, results["stages"].get("train") or {}
    digest = train.get("config", {}).get("data_digest")
    return [
        ("name", results["dataset"]),
        ("source", prepare.get("source", "unknown")),
        ("training images", f"{prepare['train_images']:,}" if prepare else "unknown"),
        ("test images", f"{results['test_images']:,}"),
        ("SHA-256 of the four files", digest or "unknown"),
        ("SHA-256 of the test files", results["model"]["test_digest"]),
    ]


def environment(results: Mapping[str, Any]) -> list[Row]:
    train = results["stages"].get("train") or {}
    network, config = train.get("network", {}), train.get("config", {})
    model, machine = results["model"], results["environment"]
    settings = ("epochs", "batch_size", "learning_rate", "seed", "threads")
    trained = ", ".join(f"{name.replace('_', ' ')} {config[name]:g}" for name in settings if name in config)
    return [
        ("training", trained or "unknown"),
        (
            "network during training",
            f"{network.get('bytes_sent', 0):,} bytes sent, "
            f"{network.get('bytes_received', 0):,} received by the machine or pod",
        ),
        ("gates", ", ".join(f"{name} {value:g}" for name, value in results["gates"].items())),
        (
            "model",
            f"{model['bytes'] / 1e6:.1f} MB, {model['precision']}, opset {model['opset']}, IR {model['ir_version']}",
        ),
        ("parity with PyTorch", f"largest difference of logits {model['parity']['max_absolute_difference']:.1e}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in model["versions"].items())),
        ("machine of the client", f"{machine['platform']}, {machine['cpus']} CPUs, Python {machine['python']}"),
        ("endpoint", results["endpoint"]),
    ]
