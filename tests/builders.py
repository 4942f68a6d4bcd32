"""What several tests make: the record of a finished run."""

from typing import Any


def run_record(**values: Any) -> dict[str, Any]:
    """What `run.json` of a finished run says, with some values of one's own."""
    data = {"train": 4, "sha256": "d" * 64} | values.pop("data", {})
    training = {"train_runtime": 2.5}
    facts = {"recipe": "tiny/lora", "seed": 1, "started": "2026-01-02T03:04:05.678+00:00"}
    return facts | {"base_weights_sha256": "b" * 64, "data": data, "training": training} | values
