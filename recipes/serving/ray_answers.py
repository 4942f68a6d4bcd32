"""Answers to a data set of any size by Ray Data: workers share the rows, and a job that was stopped goes on.

pip install ".[scale]"
python recipes/serving/ray_answers.py <data> answers --checkpoint outputs/background/lora/<time> --workers 2

A row of `answers/*.parquet` has the record of an evaluation (`id`, `question`, `reference`, `prediction`, ...) and
`row`, its index in the data: the same command asks only for rows that no file there has. Workers read the pictures; on
several machines data, answers and weights lie where all of them can read. Nothing is scored: `evaluate.py` does that.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

import vglm
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions

COLUMNS = ("id", "group", "question", "reference", "prediction", "image", "error", "finish", "tokens")
ROWS_OF_A_FILE = 1000


class Answering:
    """A worker: a model and the data, both read once.

    Args:
        data: As `vglm.load_dataset` takes it.
        split: Which of its splits.
        checkpoint: As `vglm.load_pretrained` takes it, such as a run.
        tokens: At most so many an answer.
        rows: Those that are to be answered, shape (n,), int64.
    """

    def __init__(self, data: str, split: str, checkpoint: str, tokens: int, rows: np.ndarray) -> None:
        self.split, self.rows = split, rows
        self.samples = getattr(vglm.load_dataset(data), split)
        self.model, self.processor = vglm.load_pretrained(checkpoint)
        self.decoding = Decoding(max_new_tokens=tokens)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """The records of some rows; the column `id` has their places among those that are to be answered."""
        rows = self.rows[batch["id"].to_numpy()].tolist()
        samples = [self.samples[row] for row in rows]
        records = generate_predictions(self.model, self.processor, samples, self.decoding, split=self.split)
        answers: list[dict[str, Any]] = [
            {"row": row, **{name: value for name, value in asdict(record).items() if name in COLUMNS}}
            for row, record in zip(rows, records, strict=True)
        ]
        texts = dict.fromkeys(("image", "error", "finish"), "string")  # also where all of a file's are missing
        return pd.DataFrame(answers).astype({**texts, "tokens": "Int64"})


def answered_rows(folder: Path) -> list[int]:
    """The rows that a folder's files answer; a file that was cut off is removed."""
    rows: list[int] = []
    for file in folder.glob("*.parquet"):
        try:
            rows += pq.read_table(file, columns=["row"])["row"].to_pylist()
        except pa.ArrowInvalid:
            file.unlink()
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="in any format that training takes")
    parser.add_argument("answers", type=Path, help="folder for the answers")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument(
        "--checkpoint", default="data/visualglm_tiny", help="weights or a run (default: the tiny model)"
    )
    parser.add_argument("--tokens", type=int, default=64, help="at most so many an answer (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    options = parser.parse_args()
    count = len(getattr(vglm.load_dataset(options.data), options.split))
    rest = np.setdiff1d(np.arange(count), answered_rows(options.answers))
    print(f"{options.answers}: {count - len(rest):,} of {count:,} rows are answered")
    if "RAY_ADDRESS" not in os.environ:  # on this machine alone: reading and writing need a core beside the workers
        ray.init(num_cpus=max(os.cpu_count() or 1, options.workers + 2))
    blocks = max(2 * options.workers, len(rest) // ROWS_OF_A_FILE)
    answered = ray.data.range(len(rest), override_num_blocks=min(blocks, max(1, len(rest)))).map_batches(
        Answering,
        fn_constructor_args=(options.data, options.split, options.checkpoint, options.tokens, rest),
        batch_format="pandas",
        batch_size=options.batch_size,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=1,
        num_gpus=options.gpus,
    )
    if len(rest):
        answered.write_parquet(str(options.answers.absolute()))
    print(f"{options.answers}: {len(answered_rows(options.answers)):,} of {count:,} rows are answered")


if __name__ == "__main__":
    main()
