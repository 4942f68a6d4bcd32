"""What does a data set cost as it grows: processor seconds and memory up to a training's first step, and of a report?

    python benchmarks/growth.py
    python benchmarks/growth.py --rows 1000000 --pictures 200 --formats jsonl csv json
    python benchmarks/growth.py --answers 100000

Writes rows about a few small pictures, and for each format starts `train.py` for one step in a process of its own: on
1,000 rows, on all of them, and once more, when their table is in the cache. Printed are the processor's seconds and the
peak of resident memory of the process, pages of mapped files included, what the rows take beyond 1,000 of them, and
microseconds and bytes for each row.

With `--answers`, the report of this number of answers by each of two arms: Chinese sentences about radiographs, two
samples a group, six metrics of which three are made of n-grams, and the convention of sacrebleu.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vglm.config import repo_root
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, write_evaluation, write_predictions

FEW = 1000
SETTINGS = (
    *("recipes=background/lora", "dataset=own", "trainer.max_steps=1", "trainer.use_cpu=true"),
    *("trainer.save_strategy=no", "checkpoint_selection.score_checkpoints=false", "allow_leakage=true", "-q"),
)


def rows_of(count: int, pictures: int) -> Iterator[dict[str, str]]:
    """Questions about pictures in turn, each with an answer of its own."""
    for number in range(count):
        answer = f"第{number}张：" + "肺野清晰。" * (1 + number % 19)
        yield {"image": f"images/{number % pictures}.png", "question": "描述这张图片。", "answer": answer}


def write_rows(file: Path, count: int, pictures: int) -> None:
    """A data set of one file, by its suffix, beside its pictures."""
    generator = random.Random(1)
    from PIL import Image

    (file.parent / "images").mkdir(parents=True)
    for number in range(min(count, pictures)):
        colour = tuple(generator.randrange(256) for _ in range(3))
        Image.new("RGB", (32, 32), colour).save(file.parent / "images" / f"{number}.png")
    rows = rows_of(count, pictures)
    with file.open("w", encoding="utf-8", newline="") as out:
        if file.suffix == ".csv":
            table = csv.DictWriter(out, ["image", "question", "answer"])
            table.writeheader()
            table.writerows(rows)
        elif file.suffix == ".json":
            out.write("[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]")
        else:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


SENTENCES = (
    *("心脏大小正常。", "双肺清晰，未见实变。", "未见胸腔积液。", "右下肺见片状高密度影。", "左侧肋膈角变钝。"),
    *("纵隔居中。", "未见气胸。", "骨质结构完整。", "主动脉钙化。", "肺纹理增多。"),
)
METRICS = ("exact_match", "contains", "rouge_l_characters", "bleu_zh", "chrf", "cider_d")
RENDER = "import sys; from vglm.evaluation.report import render; render(sys.argv[1])"


def answers_of(arm: int, count: int, right: float) -> Iterator[Prediction]:
    """Answers of four sentences, so many of them right."""
    generator = random.Random(arm)
    for row in range(count):
        reference = "".join(random.Random(row).sample(SENTENCES, 4))
        other = "".join(generator.sample(SENTENCES, 4))
        answer = reference if generator.random() < right else other
        about = {"group": f"g{row // 2}", "image": f"{row}.png", "image_sha256": f"{row:064x}", "kind": "ab"[row % 2]}
        texts = {"question": "描述这张胸片。", "reference": reference, "prediction": answer}
        meta = {"site": "ABC"[row % 3]}
        yield Prediction(
            id=f"s{row}", split="test", language="zh", history=(), meta=meta, finish="eos", **about, **texts
        )  # type: ignore[arg-type]


def measure_report(count: int, work: Path) -> None:
    """Print what the report of so many answers takes."""
    for label, seed, right in (("before", 1, 0.3), ("after", 2, 0.6)):
        write_predictions(answers_of(seed, count, right), work / label / "predictions.jsonl")
    config = json.dumps({"metrics": {"names": METRICS, "labels": None, "convention": "sacrebleu"}})
    arms = {"baseline": Arm(label="before", meaning="b"), "candidate": Arm(label="after", meaning="a")}
    about = {"title": "t", "summary": "s", "purpose": "tuning", "command": "", "created": "", "config": config}
    write_evaluation(Evaluation(**arms, **about, facts={}, decoding={}, versions={}), work)  # type: ignore[arg-type]
    with open(work / "log", "w", encoding="utf-8") as log:
        child = subprocess.Popen([sys.executable, "-c", RENDER, str(work)], stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit((work / "log").read_text(encoding="utf-8"))
    page = (work / "report" / "index.html").stat().st_size / 1e6
    seconds, megabytes = used.ru_utime + used.ru_stime, used.ru_maxrss / 1000
    print(f"report of {count:,} answers by each of two arms: {seconds:.1f} s, {megabytes:.0f} MB, page {page:.1f} MB")


def first_step(file: Path, work: Path) -> tuple[float, float]:
    """Processor seconds and peak memory in MB of a run of one step."""
    run = Path(tempfile.mkdtemp(dir=work))
    command = [sys.executable, str(repo_root() / "train.py"), f"dataset.path={file}", *SETTINGS]
    environment = os.environ | {"VGLM_CACHE": str(work / "cache")}
    with open(run / "log", "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [*command, f"output_dir={run / 'run'}"], stdout=log, stderr=log, env=environment, cwd=run
        )
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit((run / "log").read_text(encoding="utf-8"))
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--formats", nargs="+", default=["jsonl", "csv", "json"], choices=["jsonl", "csv", "json"])
    parser.add_argument("--answers", type=int)
    parsed = parser.parse_args()
    if parsed.answers is not None:
        with tempfile.TemporaryDirectory() as temporary:
            measure_report(parsed.answers, Path(temporary))
        return
    print(f"{'':28}{'s':>8}{'MB':>8}{'rows, s':>10}{'rows, MB':>10}{'us a row':>10}{'bytes a row':>13}")
    with tempfile.TemporaryDirectory() as temporary:
        for kind in parsed.formats:
            work = Path(temporary, kind)
            few, many = work / "few" / f"data.{kind}", work / "many" / f"data.{kind}"
            write_rows(few, FEW, parsed.pictures)
            write_rows(many, parsed.rows, parsed.pictures)
            base = first_step(few, work)
            print(f"{f'{kind}, {FEW:,} rows':28}{base[0]:8.1f}{base[1]:8.0f}", flush=True)
            for name in (f"{parsed.rows:,} rows", "again, from the cache"):
                seconds, megabytes = first_step(many, work)
                more = (seconds - base[0], megabytes - base[1])
                per_row = (1e6 * more[0] / parsed.rows, 1e6 * more[1] / parsed.rows)
                numbers = f"{more[0]:10.1f}{more[1]:10.0f}{per_row[0]:10.1f}{per_row[1]:13.0f}"
                print(f"{f'{kind}, {name}':28}{seconds:8.1f}{megabytes:8.0f}{numbers}", flush=True)


if __name__ == "__main__":
    main()
