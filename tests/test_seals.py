"""Evaluations that were altered say so; stored answers are used again where nothing they depend on has changed."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import evaluate
import train
from vglm.config import compose
from vglm.errors import AdapterError, DataError
from vglm.evaluation.pipeline import compare
from vglm.evaluation.pipeline import evaluate as evaluate_model
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.report import render
from vglm.evaluation.score.scoring import rescore
from vglm.model.loading import load_pretrained, save_native
from vglm.runs import Run

CHANGED, LATE = "ANSWERS CHANGED", "PRIMARY METRIC CHOSEN AFTERWARDS"


@pytest.fixture(scope="module")
def run_folder(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run of one step, evaluated, with scores of another program."""
    output = tmp_path_factory.mktemp("outputs") / "lora"
    fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background", "trainer=debug"]
    fixed += [f"dataset.path={few_shot_folder}", f"output_dir={output}", "checkpoint_selection.score_checkpoints=false"]
    violent = ["trainer.max_steps=2", "trainer.learning_rate=0.5", "trainer.disable_tqdm=true"]
    folder = train.run(compose(overrides=[*fixed, *violent]))
    run(folder, "metrics.names=[exact_match]")
    return folder


def run(folder: Path, *overrides: str) -> Path:
    """Evaluate with few tokens."""
    few = ["max_new_tokens=6", "image_use_samples=4", "shots_in_context=1", "splits=test"]
    return evaluate.run(compose("evaluate", [f"run={folder}", *few, *overrides]))


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


@pytest.fixture
def stored(copied: Path) -> Path:
    """Its evaluation, with scores of another program."""
    folder = copied / "evaluation"
    for arm in ("before", "after"):
        rows = lines(folder / arm / "predictions.jsonl")
        scores = [json.dumps({"id": row["id"], "score": 0.5}) for row in rows]
        (copied / f"{arm}.jsonl").write_text("\n".join(scores), encoding="utf-8")
    metrics = {"green": {"scores": f"{copied}/{{arm}}.jsonl", "signature": "half"}}
    rescore(folder, {"external": metrics}, lambda *_: None)
    render(folder)
    return folder


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[Any]) -> None:
    path.unlink()
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def edit_lines(name: str, change: Callable[[list[Any]], Any]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        rows = lines(folder / name)
        change(rows)
        write(folder / name, rows)

    return forge


def in_both(name: str, change: Callable[[list[Any]], Any]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        for arm in ("before", "after"):
            edit_lines(f"{arm}/{name}", change)(folder)

    return forge


def edit_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        change(values)
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(values), encoding="utf-8")

    return forge


def swap_arms(folder: Path) -> None:
    before, after, other = (folder / arm / "predictions.jsonl" for arm in ("before", "after", "other"))
    other.parent.mkdir()
    before.rename(other)
    after.rename(before)
    other.rename(after)
    other.parent.rmdir()


def replace_picture(folder: Path) -> None:
    path = next((folder / "images").iterdir())
    path.unlink()
    Image.new("RGB", (8, 8), "gold").save(path)


ANSWERS = "predictions.jsonl"
FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an answer": (
        edit_lines(f"after/{ANSWERS}", lambda rows: rows[0].update(prediction="right")),
        r"after/predictions\.jsonl, of \d+ answers 1 differ, 0 are missing, 0 were added",
    ),
    "a line dropped": (in_both(ANSWERS, lambda rows: rows.pop()), r"answers 0 differ, 1 are missing, 0 were added"),
    "a line added": (
        in_both(ANSWERS, lambda rows: rows.append({**rows[0], "id": "more"})),
        r"answers 0 differ, 0 are missing, 1 were added",
    ),
    "another order": (in_both(ANSWERS, lambda rows: rows.reverse()), r"its \d+ answers are in another order"),
    "arms swapped": (swap_arms, r"after/predictions\.jsonl, of .*before/predictions\.jsonl, of"),
    "a reference": (in_both(ANSWERS, lambda rows: rows[0].update(reference="wrong")), "answers 1 differ"),
    "a question": (in_both(ANSWERS, lambda rows: rows[0].update(question="Easy?")), "answers 1 differ"),
    "counts": (
        edit_json("evaluation.json", lambda values: values["summary"]["values"].update(counts=[])),
        r"evaluation\.json was edited",
    ),
    "a stamp": (edit_json("evaluation.json", lambda values: values.update(stamps=[])), r"evaluation\.json was edited"),
    "a picture": (replace_picture, r"images/\w+\.webp differs"),
    "a control": (
        edit_lines("text-only/predictions.jsonl".replace("text", "after-text"), lambda rows: rows[0].update(draw=7)),
        r"after-text-only/predictions\.jsonl, of",
    ),
    "a baseline": (edit_json("baselines.json", lambda rows: rows.pop()), r"baselines\.json differs"),
    "external scores": (
        edit_lines("after/scores.jsonl", lambda rows: rows[0].update(green=[1.0, 1.0])),
        r"external\.json or the scores that it describes were edited, so these are not used",
    ),
    "the seals": (edit_json("seals.json", lambda values: values.popitem()), r"seals\.json differs"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_report_says_that_answers_changed(stored: Path, name: str) -> None:
    assert CHANGED not in [stamp.text for stamp in read_evaluation(stored).stamps]
    forge, expected = FORGERIES[name]
    forge(stored)
    assert re.search(f"{CHANGED}: .*{expected}", verdict_of(stored)), verdict_of(stored)
    with suppress(DataError):  # scoring again launders nothing
        rescore(stored, ["metrics.names=[rouge_l_characters]", "metrics.external.green=null"])
    if name != "external scores":  # these are gone
        assert read_evaluation(stored).is_changed


def test_an_evaluation_without_hashes_says_so(stored: Path) -> None:
    description = json.loads((stored / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("sha256", "sealed"):
        del description[name]
    (stored / "evaluation.json").write_text(json.dumps(description), encoding="utf-8")
    (stored / "seals.json").unlink()
    edit_lines(f"after/{ANSWERS}", lambda rows: rows[0].update(prediction="right"))(stored)
    assert "ANSWERS NOT SEALED" in [stamp.text for stamp in read_evaluation(stored).stamps]
    assert "ANSWERS NOT SEALED" in render(stored).read_text(encoding="utf-8")


def verdict_of(folder: Path) -> str:
    """The report's stamp; or why there is no report, where what is left makes none."""
    try:
        page = render(folder).read_text(encoding="utf-8")
    except DataError as error:
        return str(error)
    assert CHANGED in page
    stamp = read_evaluation(folder).stamps[0]
    return f"{stamp.text}: {stamp.detail}"


def test_altered_answers_stand_beside_no_others(stored: Path) -> None:
    assert len(compare([stored.parent]).rows) == 1
    edit_lines(f"after/{ANSWERS}", lambda rows: rows[0].update(prediction="right"))(stored)
    with pytest.raises(DataError, match=f"{CHANGED}. These files are not what was written"):
        compare([stored.parent])


def test_a_repeated_answer_is_refused(stored: Path) -> None:
    in_both(ANSWERS, lambda rows: rows.append(rows[0]))(stored)
    with pytest.raises(DataError, match="appears twice"):
        render(stored)


def test_scores_that_were_forged_are_computed_again(stored: Path) -> None:
    true = (stored / "metrics.json").read_text(encoding="utf-8")
    edit_json("metrics.json", lambda values: values["splits"]["test"].update(n=999))(stored)
    render(stored)
    assert (stored / "metrics.json").read_text(encoding="utf-8") == true
    edit_lines("after/scores.jsonl", lambda rows: rows[0].update(green=[1.0, 1.0]))(stored)
    render(stored)
    scores = json.loads((stored / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert "green" in scores["not_computed"]


# --- the stored answers again -----------------------------------------------------------------------------------------


def answers_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = folder.glob(f"*/{ANSWERS}")
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_other_metrics_use_the_stored_answers_and_keep_the_first_report(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the copied files are newer than those that were evaluated
    run(copied, "metrics.names=[exact_match]")
    folder = copied / "evaluation"
    first, page = answers_of(folder), (folder / "report" / "index.html").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("vglm.evaluation.pipeline.open_arms", lambda *_: pytest.fail("a model is loaded"))
        assert run(copied, "metrics.names=[rouge_l_characters,chrf]") == folder
    assert "which are scored again" in capsys.readouterr().out
    assert answers_of(folder) == first
    evaluation = read_evaluation(folder)
    assert LATE in [stamp.text for stamp in evaluation.stamps]
    assert CHANGED not in [stamp.text for stamp in evaluation.stamps]
    assert [(entry.primary, entry.answered) for entry in evaluation.history[-2:]] == [
        ("exact_match", True),
        ("rouge_l_characters", False),
    ]
    assert (folder / "report-exact_match" / "index.html").read_bytes() == page
    assert "chrf" in json.loads((folder / "baselines.json").read_text(encoding="utf-8"))[0]["scores"]
    assert Run(copied).evaluation_history == list(evaluation.history)
    run(copied, "metrics.names=[exact_match]")
    assert LATE not in [stamp.text for stamp in read_evaluation(folder).stamps]
    assert (folder / "report-rouge_l_characters").is_dir()


def test_another_primary_metric_is_stamped_wherever_its_report_goes(copied: Path, tmp_path: Path) -> None:
    folder = run(copied, "metrics.names=[chrf]", f"output_dir={tmp_path / 'elsewhere'}")
    evaluation = read_evaluation(folder)
    assert LATE in [stamp.text for stamp in evaluation.stamps]
    assert [entry.primary for entry in evaluation.history] == ["exact_match", "chrf"]
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "2 of these test samples" in text


@pytest.mark.parametrize("what", ["max_new_tokens=3", "task.prompt='{question}!'", "weights", "answers"])
def test_what_answers_depend_on_is_asked_anew(copied: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    run(copied, "metrics.names=[exact_match]")
    folder = copied / "evaluation"
    if what == "weights":
        path = copied / "adapter" / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes())
    if what == "answers":
        edit_lines(f"after/{ANSWERS}", lambda rows: rows[0].update(prediction="right"))(folder)
    capsys.readouterr()
    run(copied, *([what] if "=" in what else []), "metrics.names=[exact_match]")
    assert "which are scored again" not in capsys.readouterr().out
    assert CHANGED not in [stamp.text for stamp in read_evaluation(folder).stamps]


def test_a_loaded_model_always_answers_and_its_history_goes_on(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"max_new_tokens": 2, "image_use": False, "baselines": False, "dataset": few_shot_folder}
    loaded = load_pretrained(str(random_model_folder))
    for metrics in (["exact_match"], ["chrf"]):
        folder = evaluate_model(model=loaded, metrics=metrics, output_dir=tmp_path / "a", **few).folder
    evaluation = read_evaluation(folder)
    assert evaluation.answered_with is None
    assert evaluation.facts["weights"].startswith("xxh3 ")
    assert [(entry.primary, entry.answered) for entry in evaluation.history] == [("exact_match", True), ("chrf", True)]
    assert (folder / "report-exact_match" / "index.html").is_file()


def test_a_fully_tuned_run_is_refused_on_another_base(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background", "trainer=debug", "method=full"]
    fixed += [f"dataset.path={few_shot_folder}", f"output_dir={tmp_path / 'full'}", "trainer.disable_tqdm=true"]
    folder = train.run(compose(overrides=[*fixed, "checkpoint_selection.score_checkpoints=false"]))
    model, processor = load_pretrained(random_model_folder)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    other = tmp_path / "other"
    save_native(model, processor, other)
    with pytest.raises(AdapterError, match="was tuned from another base model: expected weights"):
        run(folder, "model=visualglm_tiny", f"model.path_or_id={other}")
