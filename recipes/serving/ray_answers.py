"""Answers to a data set of any size by Ray Data: workers share the rows, and a job that was stopped goes on.

pip install ".[scale]"
python recipes/serving/ray_answers.py <data> answers --checkpoint outputs/background/lora/<time> --workers 2

A row of `answers/*.parquet` has the record of an evaluation (`id`, `question`, `reference`, `prediction`, ...) and
`row`, its place in the data, by which the same command skips what is answered. The pictures are read by the workers; on
several machines data, answers and weights lie where all of them can read. Nothing is scored: `evaluate.py` does that.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray.data.checkpoint import CheckpointConfig

import vglm
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions

COLUMNS = ("id", "group", "question", "reference", "prediction", "image", "error", "finish", "tokens")


class Answering:
    """A worker: a model and the data, both read once.

    Args:
        data: As `vglm.load_dataset` takes it.
        split: Which of its splits.
        checkpoint: As `vglm.load_pretrained` takes it, such as a run.
        tokens: At most so many an answer.
    """

    def __init__(self, data: str, split: str, checkpoint: str, tokens: int) -> None:
        self.split = split
        self.samples = getattr(vglm.load_dataset(data), split)
        self.model, self.processor = vglm.load_pretrained(checkpoint)
        self.decoding = Decoding(max_new_tokens=tokens)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """The records of some rows, whose numbers are in the column `row`."""
        rows = batch["row"].tolist()
        samples = [self.samples[row] for row in rows]
        records = generate_predictions(self.model, self.processor, samples, self.decoding, split=self.split)
        answers: list[dict[str, Any]] = [
            {"row": row, **{name: value for name, value in asdict(each).items() if name in COLUMNS}}
            for row, each in zip(rows, records, strict=True)
        ]
        return pd.DataFrame(answers)


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
    given = parser.parse_args()
    done = (given.answers.parent / f".{given.answers.name}.done").absolute()
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="row", checkpoint_path=str(done), delete_checkpoint_on_success=False
    )
    rows = ray.data.range(len(getattr(vglm.load_dataset(given.data), given.split))).rename_columns({"id": "row"})
    answered = rows.map_batches(
        Answering,
        fn_constructor_args=(given.data, given.split, given.checkpoint, given.tokens),
        batch_format="pandas",
        batch_size=given.batch_size,
        compute=ray.data.ActorPoolStrategy(size=given.workers),
        num_cpus=0.5,  # reading and writing need some of the cores too, or all would wait for each other
        num_gpus=given.gpus,
    )
    answered.write_parquet(str(given.answers.absolute()))
    print(f"{given.answers}: {sum(len(pd.read_parquet(each)) for each in given.answers.glob('*.parquet')):,} answers")


if __name__ == "__main__":
    main()
