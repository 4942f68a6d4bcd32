import functools
import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from builders import question_about
from golden.make_encoder_metrics import write_miniature
from PIL import Image, ImageOps
from programs import run_processes, run_program
from safetensors.torch import load_file, save_file
from servers import moved_adapter

import evaluate
import train
from vglm.config import compose, repo_root
from vglm.console import recording
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.errors import LONGEST_MESSAGE, AdapterError, ConfigError, DataError, WorkbenchError
from vglm.evaluation.predict.controls import shuffle_images
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predict.training_loss import measure_losses
from vglm.evaluation.predictions import read_evaluation, read_losses, read_predictions
from vglm.evaluation.report import render
from vglm.evaluation.score.baselines import read_baselines
from vglm.model.loading import load_pretrained, save_native
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.worlds.pretraining import scene_splits

TOKENS = 6


@pytest.fixture(scope="module")
def data(few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples to train on; two others and one of the four to test on; a retention set without images."""
    folder = tmp_path_factory.mktemp("data")
    rows = json.loads((few_shot_folder / "dataset.json").read_text(encoding="utf-8"))
    for picture in few_shot_folder.glob("*.png"):
        shutil.copy(picture, folder)
    (folder / "copy.png").write_bytes((folder / rows[0]["img"]).read_bytes())
    retention = [{"img": None, "prompt": "你好", "label": "你好。", "kind": "plain"}]
    splits = {"train": rows[:4], "test": [{**rows[0], "img": "copy.png"}, *rows[4:]], "probe": retention}
    for name, content in splits.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run_folder(random_model_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run of two violent steps."""
    output = tmp_path_factory.mktemp("outputs") / "lora"
    overrides = [f"model.path_or_id={random_model_folder}", f"dataset.path={data}", f"output_dir={output}"]
    overrides += ["allow_leakage=true"]
    steps = ["trainer.max_steps=2", "trainer.learning_rate=0.5", "trainer.use_cpu=true", "trainer.disable_tqdm=true"]
    return train.run(compose("train", [*overrides, *steps]))


@pytest.fixture
def copied_run(run_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_folder, tmp_path / "run")


def run(*overrides: str) -> Path:
    return evaluate.run(compose("evaluate", [f"max_new_tokens={TOKENS}", "batch_size=2", *overrides]))


def test_before_is_the_base_and_after_has_the_adapter(
    run_folder: Path, random_model_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(f"run={run_folder}")
    assert folder == run_folder / "evaluation"
    splits = load_dataset(data, retention="probe.json")
    for arm, adapter in (("before", None), ("after", run_folder / "adapter")):
        model, processor = load_pretrained(random_model_folder, adapter=adapter)
        decoding = Decoding(max_new_tokens=TOKENS, batch_size=2)
        expected = generate_predictions(model, processor, splits.test, decoding)
        expected += generate_predictions(model, processor, splits.retention, decoding, split="retention")
        assert read_predictions(folder / arm / "predictions.jsonl") == expected
    before, after = ((folder / arm / "predictions.jsonl").read_text("utf-8") for arm in ("before", "after"))
    assert before != after
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {name: split["n"] for name, split in metrics["splits"].items()} == {"test": 3, "retention": 1}
    assert metrics["retention_loss_points"] == 0.0
    printed = capsys.readouterr().out
    assert "Retention set" in printed
    assert printed.rstrip().endswith("index.html")


def test_what_an_evaluation_printed_is_kept_beside_it(run_folder: Path, tmp_path: Path) -> None:
    quick = [f"run={run_folder}", "splits=retention", "image_use=false", "baselines=false"]
    with recording():
        folder = run(*quick, f"output_dir={tmp_path / 'kept'}")
    text = (folder / "console.log").read_text(encoding="utf-8")
    assert "before: " in text
    assert text.rstrip().endswith("index.html")
    with recording():
        run(*quick, f"output_dir={folder}", "metrics=caption")
    again = (folder / "console.log").read_text(encoding="utf-8")
    assert again.startswith(text)
    assert "which are scored again" in again.removeprefix(text)
    assert not read_evaluation(folder).is_changed


def test_the_report_says_what_was_tuned_and_that_a_test_image_was_trained_on(run_folder: Path) -> None:
    folder = run(f"run={run_folder}")
    evaluation = read_evaluation(folder)
    assert (evaluation.title, evaluation.purpose) == ("background/lora", "tuning")
    assert "random_tiny tuned with LoraConfig on 4 samples" in str(evaluation.summary)
    assert "Scored on 3 test samples and 1 retention samples" in str(evaluation.summary)
    assert [stamp.text for stamp in evaluation.stamps] == ["LEAKED", "EVALUATED ON TRAINING IMAGES", "ANSWERS CUT"]
    assert str(evaluation.stamps[2].detail).startswith("3 of 3 test answers before; 1 of 1 retention answers before; ")
    assert f" reached max_new_tokens = {TOKENS} and were cut." in str(evaluation.stamps[2].detail)
    assert "1 test samples are not independent of train" in str(evaluation.stamps[0].detail)
    assert "1 of 3 test images" in str(evaluation.stamps[1].detail)  # the same content under another name
    assert "r 8" in evaluation.facts["method"]
    assert evaluation.decoding == {"greedy": True, "batch_size": 2, "max_new_tokens": TOKENS, "dtype": "float32"}
    assert yaml.safe_load(evaluation.config)["model"]["path_or_id"].endswith("random_tiny")
    assert "EVALUATED ON TRAINING IMAGES" in (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "EVALUATED ON TRAINING IMAGES" in (folder / "report" / "report.md").read_text(encoding="utf-8")


def test_a_run_that_is_tested_on_its_training_samples_is_stamped(run_folder: Path, tmp_path: Path) -> None:
    quick = ["splits=test", "image_use=false", "baselines=false", f"output_dir={tmp_path / 'seen'}"]
    folder = run(f"run={run_folder}", "dataset.test=train.json", *quick)
    stamps = {stamp.text: str(stamp.detail) for stamp in read_evaluation(folder).stamps}
    assert stamps["EVALUATED ON TRAINING IMAGES"].startswith("4 of 4 test images were trained on")
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert "But see the warning: " in report["verdict"]["en"]
    assert "EVALUATED ON TRAINING IMAGES" in report["verdict"]["en"]


def test_test_pictures_made_from_training_pictures_are_stamped_and_shown(
    random_model_folder: Path, tmp_path: Path
) -> None:
    scenes = np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3), dtype=np.uint8)
    for name, cells in zip("abcdef", scenes, strict=True):
        Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    ImageOps.mirror(Image.open(tmp_path / "b.png")).save(tmp_path / "b again.png")
    for split, names in (("train", "abcd"), ("test", ["e", "b again", "f"])):
        rows = [{"img": f"{name}.png", "prompt": "什么？", "label": name} for name in names]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    overrides = [f"model.path_or_id={random_model_folder}", f"dataset.path={tmp_path}", "dataset.probe=null"]
    steps = ["trainer.max_steps=1", "trainer.use_cpu=true", "trainer.disable_tqdm=true"]
    trained = train.run(compose("train", [*overrides, *steps, f"output_dir={tmp_path / 'run'}"]))
    folder = run(f"run={trained}", "splits=test", "image_use=false", "baselines=false")
    stamps = {stamp.text: str(stamp.detail) for stamp in read_evaluation(folder).stamps}
    assert stamps["LEAKED"] == (
        "1 of 3 test samples show a training picture once more (1 flipped; first: test.json#2 is train.json#2)."
        " The scores show memory as well as skill."
    )
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    pairs = page[page.index('id="leaks"') :].partition("</section>")[0]
    assert pairs.count('<img src="data:image/webp;base64,') == 2
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert r"| test.json\#2 | train.json\#2 | flipped |" in text


def test_data_changed_since_the_training_is_stamped(copied_run: Path, data: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(data, tmp_path / "changed")
    Image.new("RGB", (9, 9), "pink").save(changed / "red.png")
    config = yaml.safe_load((copied_run / "config.yaml").read_text(encoding="utf-8"))
    config["dataset"]["path"] = str(changed)
    (copied_run / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    stamps = {stamp.text: str(stamp.detail) for stamp in read_evaluation(run(f"run={copied_run}")).stamps}
    assert "red.png" in stamps["DATA CHANGED SINCE TRAINING"]
    evaluation = read_evaluation(run(f"run={copied_run}", f"dataset.path={data}", f"output_dir={tmp_path / 'other'}"))
    assert [stamp.text for stamp in evaluation.stamps] == ["LEAKED", "EVALUATED ON TRAINING IMAGES", "ANSWERS CUT"]
    assert str(evaluation.stamps[2].detail).startswith("3 of 3 test answers before; 1 of 1 retention answers before; ")
    assert f" reached max_new_tokens = {TOKENS} and were cut." in str(evaluation.stamps[2].detail)


def test_a_run_can_prove_what_it_was_tested_on(copied_run: Path, data: Path) -> None:
    record = load_dataset(data, retention="probe.json").record()
    (copied_run / "splits.json").write_text(json.dumps(record), encoding="utf-8")
    evaluation = read_evaluation(run(f"run={copied_run}", "splits=test"))
    digest = record["splits"]["test"]["sha256"][:16]
    assert str(evaluation.facts["test data"]) == f"3 samples, sha256 {digest}, the split that the run set apart"
    record["splits"]["test"]["sha256"] = "0" * 64
    record["splits"]["train"]["group_names"].append("white.png")  # as if the second test picture had been trained on
    (copied_run / "splits.json").write_text(json.dumps(record), encoding="utf-8")
    stamps = {
        stamp.text: str(stamp.detail) for stamp in read_evaluation(run(f"run={copied_run}", "splits=test")).stamps
    }
    assert list(stamps) == ["LEAKED", "OTHER TEST SAMPLES", "EVALUATED ON TRAINING IMAGES", "ANSWERS CUT"]
    assert "; 1 of 3 test samples are called as training samples are." in stamps["LEAKED"]
    (copied_run / "splits.json").write_text("{", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"splits\.json is damaged"):
        run(f"run={copied_run}", "splits=test")


def test_a_fully_tuned_run_compares_two_models(random_model_folder: Path, tmp_path: Path) -> None:
    model = ["recipes=tiny/pretrain", "model=visualglm_tiny", f"model.path_or_id={random_model_folder}"]
    dataset = ["dataset.train_samples=4", "dataset.test_samples=3", f"output_dir={tmp_path / 'full'}"]
    steps = ["trainer.max_steps=1", "trainer.per_device_train_batch_size=4", "trainer.learning_rate=0.05"]
    quiet = ["trainer.use_cpu=true", "trainer.disable_tqdm=true"]
    folder = run(f"run={train.run(compose('train', [*model, *dataset, *steps, *quiet]))}")
    samples = scene_splits(train_samples=4, test_samples=3, seed=1, test_seed=2).test
    for arm, path in (("before", random_model_folder), ("after", tmp_path / "full" / "model")):
        expected = generate_predictions(*load_pretrained(path), samples, Decoding(max_new_tokens=TOKENS, batch_size=2))
        assert read_predictions(folder / arm / "predictions.jsonl") == expected


def test_a_model_alone_is_asked_with_shuffled_and_true_images(
    random_model_folder: Path, data: Path, tmp_path: Path
) -> None:
    model = ["model=visualglm_tiny", f"model.path_or_id={random_model_folder}"]
    dataset = ["dataset=background_synthetic", f"dataset.path={data}"]
    folder = run(*model, *dataset, "seed=3", f"output_dir={tmp_path / 'alone'}", "splits=[test]")
    folders = ["blank", "images", "in-context", "report", "shuffled", "text-only", "true"]  # no answer is there twice
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == folders
    evaluation = read_evaluation(folder)
    assert [arm.label for arm in evaluation.controls] == ["blank", "text-only", "in-context"]
    assert (evaluation.purpose, [stamp.text for stamp in evaluation.stamps]) == ("image use", ["ANSWERS CUT"])
    samples = load_dataset(data).test
    loaded = load_pretrained(random_model_folder)
    for arm, rows in (("shuffled", shuffle_images(samples, seed=3)), ("true", samples)):
        expected = generate_predictions(*loaded, rows, Decoding(max_new_tokens=TOKENS))
        assert read_predictions(folder / arm / "predictions.jsonl") == expected


def test_controls_and_baselines_are_written_and_declared(run_folder: Path, data: Path, tmp_path: Path) -> None:
    folder = run(f"run={run_folder}", f"output_dir={tmp_path / 'a'}", "image_use_samples=2")
    evaluation = read_evaluation(folder)
    labels = [f"{arm}-{control}" for arm in ("before", "after") for control in ("blank", "shuffled")]
    assert [arm.label for arm in evaluation.controls] == [*labels, "after-text-only", "before-in-context"]
    samples = load_dataset(data).test
    for label in labels:
        records = read_predictions(folder / label / "predictions.jsonl")
        assert len(records) == 2
        assert {record.id for record in records} <= {sample.id for sample in samples}
        images = {record.image_sha256 for record in records}
        assert len(images) == (1 if "blank" in label else 2)
    text_only = read_predictions(folder / "after-text-only" / "predictions.jsonl")
    assert [(record.id, record.image) for record in text_only] == [(sample.id, None) for sample in samples]
    names = ["constant answer", "majority class", "random training answer", "nearest neighbour", "text only"]
    baselines = read_baselines(folder)
    assert [str(baseline.name) for baseline in baselines] == [*names, "4-shot in context"]
    shown = read_predictions(folder / "before-in-context" / "predictions.jsonl")
    assert [(record.id, len(record.history)) for record in shown] == [(sample.id, 4) for sample in samples]
    examples = {(sample.question, sample.answer) for sample in load_dataset(data).train}
    assert set(shown[0].history) == examples  # all four training samples
    assert "4-shot in context" in (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert {name: baseline for baseline in baselines for name in baseline.scores}.keys() >= {"exact_match"}
    nearest = baselines[3].scores["exact_match"]
    assert nearest == pytest.approx(
        1 / 3
    )  # the copy of a training image; the two other answers are in no training sample

    folder = run(f"run={run_folder}", f"output_dir={tmp_path / 'b'}", "image_use=false", "baselines=false")
    folders = ["after", "before", "images", "report"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == folders
    assert read_evaluation(folder).controls == ()
    with pytest.raises(ConfigError, match="image_use_samples must be a positive integer, got -3"):
        run(f"run={run_folder}", "image_use_samples=-3")


def test_the_loss_of_training_answers_is_measured_on_the_tuned_model(
    run_folder: Path, data: Path, tmp_path: Path
) -> None:
    quick = ["splits=[test]", "image_use=false", "baselines=false"]
    folder = run(f"run={run_folder}", f"output_dir={tmp_path / 'a'}", *quick)
    losses = read_losses(folder)
    assert [loss.loss for loss in losses] == sorted((loss.loss for loss in losses), reverse=True)
    model, processor = load_pretrained(
        yaml.safe_load((run_folder / "config.yaml").read_text("utf-8"))["model"]["path_or_id"],
        adapter=run_folder / "adapter",
    )
    train = {sample.id: sample for sample in load_dataset(data).train}
    assert {loss.id for loss in losses} == train.keys()
    for loss in losses:
        sample = train[loss.id]
        assert (loss.question, loss.reference) == (sample.question, sample.answer)
        image = sample.open_image()
        assert image is not None
        batch = Collator(processor)([sample])
        first = int((batch["labels"][0] >= 0).nonzero()[0])
        batch["labels"][0, first] = -100  # <sop>, which belongs to the prompt
        with torch.inference_mode():
            assert loss.loss == pytest.approx(float(model(**batch).loss), abs=1e-4)
        assert (folder / "images" / f"{loss.image_sha256}.webp").is_file()
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert page.partition('<section id="hardest">')[2].partition("</section>")[0].count("<li>") == 4
    (tmp_path / "images").mkdir()
    twice = measure_losses(model, processor, [*train.values(), *train.values()], tmp_path)
    assert [loss.id for loss in twice] == [loss.id for loss in losses]  # a repeated sample counts once
    few = run(f"run={run_folder}", f"output_dir={tmp_path / 'b'}", "training_loss_samples=2", *quick)
    assert len(read_losses(few)) == 2
    none = run(f"run={run_folder}", f"output_dir={tmp_path / 'c'}", "training_loss_samples=0", *quick)
    assert read_losses(none) == []
    assert 'id="hardest"' not in (none / "report" / "index.html").read_text(encoding="utf-8")


def test_questions_are_asked_in_other_words_of_both_arms(run_folder: Path, data: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("请看图：{question}\n", encoding="utf-8")
    quick = ["splits=[test]", "image_use=false", "baselines=false", f"prompts={prompts}"]
    folder = run(f"run={run_folder}", f"output_dir={tmp_path / 'a'}", *quick)
    assert [arm.label for arm in read_evaluation(folder).controls] == ["before-prompt-1", "after-prompt-1"]
    samples = load_dataset(data).test
    for label in ("before-prompt-1", "after-prompt-1"):
        records = read_predictions(folder / label / "predictions.jsonl")
        assert [(record.id, record.question) for record in records] == [
            (sample.id, f"请看图：{sample.question}") for sample in samples
        ]
    reported = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["prompts"]
    assert reported["templates"] == ["{question}", "请看图：{question}"]
    assert {arm: counts["n"] for arm, counts in reported["arms"].items()} == {"before": 3, "after": 3}
    prompts.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prompts: .* expected 1 to 20"):
        run(f"run={run_folder}", f"output_dir={tmp_path / 'b'}", *quick)
    assert not (tmp_path / "b").exists()


@pytest.fixture(scope="module")
def blind_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with its image projection set to zero: every image is the same to its language model."""
    model, processor = load_pretrained(repo_root() / "data" / "visualglm_tiny", dtype="float32")
    with torch.no_grad():
        model.model.language_projection.weight.zero_()
    folder = tmp_path_factory.mktemp("blind") / "model"
    save_native(model, processor, folder)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions that the shipped model answers well, and a training split with one answer to everything."""
    source, folder = repo_root() / "data" / "background_synthetic", tmp_path_factory.mktemp("scenes")
    rows = json.loads((source / "probe.json").read_text(encoding="utf-8"))
    test = [row for row in rows if row["kind"] in ("place", "colour")][:24]
    for row in test:
        shutil.copy(source / row["img"], folder / Path(row["img"]).name)
        row["img"] = Path(row["img"]).name
    (folder / "test.json").write_text(json.dumps(test, ensure_ascii=False), encoding="utf-8")
    plain = write_plain_pictures(folder, 12, ("在月亮上。", "在山洞里。"))
    (folder / "train.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    return folder


def write_plain_pictures(folder: Path, number: int, labels: Sequence[str]) -> list[dict[str, str]]:
    """Rows about pictures of one colour each; the labels take turns, for with one of all no skill could be shown."""
    rows = []
    for index in range(number):
        Image.new("RGB", (32, 32), (4 * index, 255 - 4 * index, 99)).save(folder / f"{index}.png")
        rows.append({"img": f"{index}.png", "prompt": "这是哪里？", "label": labels[index % len(labels)]})
    return rows


def test_a_model_that_ignores_its_image_is_told_from_one_that_looks(
    blind_model: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = ["dataset=background_synthetic", f"dataset.path={scenes}", "dataset.retention=null", "max_new_tokens=12"]
    verdicts = {}
    for name, path in {"looks": repo_root() / "data" / "visualglm_tiny", "blind": blind_model}.items():
        model = ["model=visualglm_tiny", f"model.path_or_id={path}", "batch_size=24", "shots_in_context=0"]
        folder = run(*model, *dataset, f"output_dir={tmp_path / name}")
        verdicts[name] = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["verdict"]["en"]
    assert verdicts["looks"].startswith("It uses the image: with the true image Exact match is")
    same = "The answers do not rest on the image: with another sample's image all 24 stay the same"
    assert verdicts["blind"].startswith(same)
    assert same in " ".join(capsys.readouterr().out.split())


def test_a_run_that_answers_without_its_image_is_told(blind_model: Path, tmp_path: Path) -> None:
    """Half of the samples have the answer that the tuned model gives to every picture, which is not the base's."""
    adapter = moved_adapter(blind_model, tmp_path / "moved")
    questions = [question_about(str(row), Image.new("RGB", (32, 32)), "这是哪里？") for row in range(40)]  # as below
    settings = Decoding(max_new_tokens=12, batch_size=40)
    before, after = (
        generate_predictions(*load_pretrained(blind_model, adapter=adapter_dir), questions, settings)[0].prediction
        for adapter_dir in (None, adapter)
    )
    assert after.strip()
    assert after != before
    rows = write_plain_pictures(tmp_path, 52, (after, "在山洞里。"))
    for name, part in {"train": rows[:12], "test": rows[12:]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    model = ["recipes=background/lora", f"model.path_or_id={blind_model}", f"output_dir={tmp_path / 'run'}"]
    dataset = [f"dataset.path={tmp_path}", "dataset.retention=null", "checkpoint_selection.score_checkpoints=false"]
    steps = ["trainer.max_steps=1", "trainer.use_cpu=true", "trainer.disable_tqdm=true"]
    trained = train.run(compose("train", [*model, *dataset, *steps]))
    shutil.copytree(adapter, trained / "adapter", dirs_exist_ok=True)
    folder = run(f"run={trained}", "max_new_tokens=12", "batch_size=40", "shots_in_context=0")
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["en"].startswith("Better:")
    assert "It is not shown to come from the image." in report["verdict"]["en"]
    assert "A simple rule " in report["verdict"]["en"]
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Image use, after: the answers do not rest on the image" in page


def test_a_killed_evaluation_goes_on_where_it_was(
    run_folder: Path,
    scenes: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides = [f"run={run_folder}", "dataset=background_synthetic", f"dataset.path={scenes}", "splits=[test]"]
    overrides += ["dataset.retention=null", "image_use=false", "baselines=false", "max_new_tokens=2", "batch_size=8"]
    whole = run(*overrides, f"output_dir={tmp_path / 'whole'}")
    monkeypatch.setenv("VGLM_CACHE", str(tmp_path_factory.mktemp("cache")))  # without the answers kept just now

    killed = f"""
        import os, runpy, signal, sys
        from vglm.model.modeling import VisualGlmForConditionalGeneration as Model

        allowed, generate = iter(range(2)), Model.generate

        def die_in_the_third_batch(self, **inputs):
            if next(allowed, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return generate(self, **inputs)

        Model.generate = die_in_the_third_batch
        sys.argv[1:] = {[*overrides, f"output_dir={tmp_path / 'killed'}"]!r}
        runpy.run_path({evaluate.__file__!r}, run_name="__main__")
    """
    done = run_program("-c", dedent(killed))
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = count_lines(tmp_path)
    assert finished == 16
    assert not (tmp_path / "killed").exists()

    answered = 0
    generate = VisualGlmForConditionalGeneration.generate

    def counting(self: object, **inputs: Any) -> object:
        nonlocal answered
        answered += 1
        return generate(self, **inputs)

    monkeypatch.setattr(VisualGlmForConditionalGeneration, "generate", counting)
    folder = run(*overrides, f"output_dir={tmp_path / 'killed'}")
    assert answered == 6 - 2  # batches; nothing that was finished was asked again
    for arm in ("before", "after"):
        assert (folder / arm / "predictions.jsonl").read_bytes() == (whole / arm / "predictions.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def count_lines(folder: Path) -> int:
    """Whole records in the work folder of the killed evaluation."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(".killed.*.work/*/predictions*.jsonl"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is a full disk")
def test_two_processes_share_the_samples_and_end_together(
    run_folder: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"run={run_folder}", "dataset=background_synthetic", f"dataset.path={scenes}", "splits=[test]"]
    overrides += [
        "dataset.retention=null",
        "image_use=false",
        "baselines=false",
        "max_new_tokens=2",
        "temperature=0.8",
        "repeats=2",
    ]
    whole = run(*overrides, "batch_size=48", f"output_dir={tmp_path / 'whole'}")
    overrides += ["batch_size=7", f"output_dir={tmp_path / 'shared'}"]

    generate = VisualGlmForConditionalGeneration.generate
    calls = iter(range(5))

    def stopping(self: object, **inputs: Any) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return generate(self, **inputs)

    with monkeypatch.context() as patch:
        patch.setattr(VisualGlmForConditionalGeneration, "generate", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(compose("evaluate", overrides))
    (work,) = tmp_path.glob(".shared.*.work")
    assert len(read_predictions(work / "before" / "predictions.0.jsonl")) == 35

    full = work / "after" / "predictions.1.jsonl"  # the second process fails in the second arm
    full.parent.mkdir()
    full.symlink_to("/dev/full")
    failed = run_processes(evaluate.__file__, *overrides)
    assert failed.returncode == 2
    assert failed.stderr.count("error: ") == 1
    assert f"error: {tmp_path / 'shared'} cannot be written: No space left on device." in failed.stderr
    assert "Traceback" not in failed.stdout
    before = Path("before", "predictions.jsonl")
    assert (work / before).read_bytes() == (whole / before).read_bytes()
    full.unlink()

    shared = run_processes(evaluate.__file__, *overrides)
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.count("Report: ") == 1
    for arm in ("before", "after"):
        predictions = tmp_path / "shared" / arm / "predictions.jsonl"
        assert predictions.read_bytes() == (whole / arm / "predictions.jsonl").read_bytes()
    metrics = [json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (whole, tmp_path / "shared")]
    assert metrics[0] == metrics[1]
    assert (metrics[0]["draws"]["n"], metrics[0]["splits"]["test"]["n"]) == (2, 24)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared", "whole"]

    answers = (tmp_path / "shared" / "after" / "predictions.jsonl").read_bytes()
    with monkeypatch.context() as patch:  # one process scores what two have answered
        patch.setattr(VisualGlmForConditionalGeneration, "generate", stopping)
        again = run(*overrides, "metrics=vqa")
    assert json.loads((again / "metrics.json").read_text("utf-8"))["primary"] == "vqa_accuracy"
    assert (again / "after" / "predictions.jsonl").read_bytes() == answers


def test_sampled_answers_say_how_they_were_drawn(run_folder: Path, tmp_path: Path) -> None:
    sampled = ["temperature=0.9", "top_p=0.95", "top_k=40", "repeats=3", "seed=5", "image_use_samples=2"]
    folder = run(f"run={run_folder}", *sampled, f"output_dir={tmp_path / 'a'}")
    evaluation = read_evaluation(folder)
    assert evaluation.decoding == {
        "greedy": False, "batch_size": 2, "max_new_tokens": TOKENS, "draws": 3, "temperature": 0.9, "top_p": 0.95,
        "top_k": 40, "seed": 5, "dtype": "float32",
    }  # fmt: skip
    assert "Scored on 3 test samples and 1 retention samples, each answered 3 times." in str(evaluation.summary)
    assert "1 of 3 test images" in str(evaluation.stamps[1].detail)
    for arm, count in (("before", 12), ("after", 12), ("after-blank", 6), ("after-text-only", 9)):
        records = read_predictions(folder / arm / "predictions.jsonl")
        assert [record.draw for record in records] == [0, 1, 2] * (count // 3)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["draws"]["n"], metrics["splits"]["test"]["n"]) == (3, 3)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert {gain["n"] for gain in report["image_use"] if gain["control"] == "blank"} == {2}


def test_a_damaged_adapter_is_refused_and_the_last_evaluation_stays(copied_run: Path) -> None:
    report = run(f"run={copied_run}", "splits=retention") / "report" / "index.html"
    before = report.read_bytes()
    (copied_run / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(AdapterError, match="cannot be put on this model"):
        run(f"run={copied_run}", "splits=retention")
    assert report.read_bytes() == before


def test_a_run_whose_weights_are_no_numbers_is_refused(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied_run / "evaluation", ignore_errors=True)  # of another test
    weights = copied_run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    done = run_program(evaluate.__file__, f"run={copied_run}", "splits=retention")
    assert done.returncode == 2
    assert "tensors hold NaN or infinity" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (copied_run / "evaluation").exists()


def test_what_is_no_finished_run_is_refused(copied_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        run(f"run={tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match=r"there is no model: pass run=<run folder>, or model="):
        run()
    (copied_run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"run\.json is damaged"):
        run(f"run={copied_run}")
    (copied_run / "config.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged"):
        run(f"run={copied_run}")
    shutil.rmtree(copied_run / "adapter")
    (copied_run / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"it lacks run\.json, adapter/ or model/ and holds .*config\.yaml"):
        run(f"run={copied_run}")


def test_a_result_that_failed_its_check_is_evaluated_when_told_and_stamped(copied_run: Path) -> None:
    (copied_run / "adapter").rename(copied_run / "adapter.unverified")
    with pytest.raises(ConfigError, match=r"holds adapter\.unverified/ alone.*unverified=true"):
        run(f"run={copied_run}")
    folder = run(f"run={copied_run}", "unverified=true", "splits=retention", "image_use=false", "baselines=false")
    evaluation = read_evaluation(folder)
    assert evaluation.stamps[0].text == "UNVERIFIED"
    assert evaluation.facts["tuned weights"].startswith("sha256 ")
    assert "UNVERIFIED" in (folder / "report" / "index.html").read_text(encoding="utf-8")


DAMAGED = {
    "config.yaml": [b"\xff", b"[", b"dataset: 5", b"method: {x: peft.LoraConfig}", b"a: &a [1]\nb: *a"],
    "run.json": [b"\xff\xfe", b"[]", b'{"data": 5}', b'{"seed": "one"}', b"[" * 100_000],
    "splits.json": [b"\xff" * 50_000, b'{"files": {"a": 5}, "splits": {}}', b'{"files": {}, "splits": {"test": 5}}'],
    "log.jsonl": [b"\xff\n", b"[]\n", b'{"step": "five"}\n', b'{"step": 1'],
    "forgetting.jsonl": [
        b"\xff\n",
        b"{}\n",
        b'{"step": 0, "domain": "x", "retention": 1, "domain_n": 1, "retention_n": 1}\n',
    ],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, all_ in DAMAGED.items() for content in all_])
def test_damaged_runs_are_refused_in_one_message_before_the_model_loads(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    (copied_run / name).write_bytes(content)
    before = sorted(path.name for path in copied_run.iterdir())

    @functools.wraps(load_pretrained)
    def load(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr("vglm.model.loading.load_pretrained", load)
    with pytest.raises(WorkbenchError, match=name.replace(".", r"\.")) as caught:
        run(f"run={copied_run}", "splits=retention", "image_use=false", "baselines=false")
    assert len(str(caught.value)) < LONGEST_MESSAGE
    assert sorted(path.name for path in copied_run.iterdir()) == before


def test_wrong_settings_and_places_are_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `max_new_tokens`"):
        run(f"run={run_folder}", "max_new_token=4")
    with pytest.raises(ConfigError, match="batch_size must be a positive integer, got 0"):
        run(f"run={run_folder}", "batch_size=0", f"output_dir={tmp_path / 'a'}")
    with pytest.raises(ConfigError, match="repeats is 2, but answers are greedy"):
        run(f"run={run_folder}", "repeats=2")
    with pytest.raises(ConfigError, match=r"splits: expected .*got \['tests'\]; did you mean `test`"):
        run(f"run={run_folder}", "splits=[tests]")
    with pytest.raises(ConfigError, match=r"splits: expected .*got 3"):
        run(f"run={run_folder}", "splits=3")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match="holds other files"):
        run(f"run={run_folder}", f"output_dir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_latest_is_the_run_that_finished_last(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkbenchError, match="holds no finished run"):
        run("run=latest")
    shutil.copytree(run_folder, tmp_path / "outputs" / "background" / "lora" / "one")
    folder = run("run=latest", "splits=retention")
    assert folder == Path("outputs/background/lora/one/evaluation")
    assert read_evaluation(folder).facts["run"] == "outputs/background/lora/one"


def test_mistakes_on_the_command_line_end_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate.py", f"run={tmp_path / 'nowhere'}"])
    with pytest.raises(SystemExit) as caught:
        evaluate.main()
    assert caught.value.code == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_metrics_of_models_of_the_user_s_own(copied_run: Path, tmp_path: Path) -> None:
    bert, output = tmp_path / "bert-base-uncased", tmp_path / "evaluation"
    write_miniature(bert)
    settings = {
        "bert_score.model": bert, "bert_score.num_layers": 2,
        "chexbert.weights": bert / "chexbert.pth", "chexbert.tokenizer": bert,
    }  # fmt: skip
    overrides = [f"metrics.external.{name}={value}" for name, value in settings.items()]
    quick = ["image_use=false", "baselines=false", f"output_dir={output}", "metrics.names=[bert_score,exact_match]"]
    run(f"run={copied_run}", *quick, *overrides)
    scores = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert scores["primary"] == "bert_score"
    assert set(scores["splits"]["test"]["scores"]) >= {
        "bert_score",
        "exact_match",
        "chexbert_micro_f1",
        "chexbert_macro_f1_5",
    }
    assert "bert_score" not in scores["splits"]["retention"]["scores"]  # by exact match alone
    shutil.rmtree(bert)  # a report needs no weights
    before = (output / "metrics.json").read_bytes()
    render(output)
    assert (output / "metrics.json").read_bytes() == before
    with pytest.raises(ConfigError, match=r"is no folder with a model's config\.json"):  # before anything is loaded
        run(f"run={copied_run}", *quick, *overrides)
