"""Which checkpoint is kept, that looking at checkpoints changes nothing, and what a report says of it."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import interrupted_in_step, run_record
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from safetensors.torch import load_file

import evaluate
from train import run
from vglm.config import build, check_config, compose
from vglm.data.loading import load_dataset
from vglm.data.mixing import Mixture
from vglm.data.sample import Sample, Turn
from vglm.data.splits import pick
from vglm.errors import CheckpointError, ConfigError, DataError
from vglm.evaluation.checkpoint_selection import (
    EXAMPLE_TOKENS,
    CheckpointSelection,
    choose,
    is_lost,
    lost_points,
    preserving_state,
    primary_share,
    write_scores,
)
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predict.provenance import curves_of, describe_choice
from vglm.evaluation.predictions import read_evaluation, read_losses, read_predictions
from vglm.evaluation.score.settings import MetricSettings
from vglm.model.loading import load_pretrained
from vglm.runs import CheckpointScore, ForgettingRecord, Run, read_scores
from vglm.tuning.methods import attach
from vglm.worlds.pretraining import SceneDialogues, scene_splits

# --- choosing ---------------------------------------------------------------------------------------------------------


def _scores(*values: tuple[float, float | None], every: int = 10) -> list[CheckpointScore]:
    return [
        CheckpointScore(index * every, domain, retention, 40, 64) for index, (domain, retention) in enumerate(values)
    ]


def test_the_best_on_the_domain_within_the_budget_is_kept() -> None:
    scores = _scores((0.0, 0.80), (0.3, 0.79), (0.6, 0.76), (0.9, 0.70))
    assert lost_points(scores) == {0: 0.0, 10: 1.0, 20: 4.0, 30: 10.0}
    assert [choose(scores, budget).step for budget in (1, 4, 9.9, 10)] == [10, 20, 20, 30]
    assert choose(scores, 4).warning is None
    assert str(choose(scores, 4)).startswith(
        "kept step 20 of 3 checkpoints (60.0 on the domain, 0.0 before; 4.0 points"
    )
    assert choose(scores[:1], 4) is None


def test_of_equal_ones_that_which_forgot_less_and_then_the_earlier_is_kept() -> None:
    assert choose(_scores((0.0, 0.8), (0.9, 0.78), (0.9, 0.79), (0.9, 0.79)), 5).step == 20


def test_where_all_forgot_too_much_the_one_that_forgot_least_is_kept_and_it_is_said() -> None:
    choice = choose(_scores((0.0, 0.8), (0.2, 0.6), (0.9, 0.5)), 5)
    assert (choice.step, choice.lost_points, choice.warning) == (10, 20.0, "FORGETTING BUDGET EXCEEDED")
    assert str(choice).startswith("FORGETTING BUDGET EXCEEDED: no checkpoint lost 5 points at most; kept the one that")


def test_that_nothing_was_learned_within_the_budget_is_said() -> None:
    choice = choose(_scores((0.1, 0.8), (0.1, 0.8), (0.9, 0.5)), 5)
    assert (choice.step, choice.warning) == (10, "NOTHING LEARNED WITHIN THE FORGETTING BUDGET")
    assert "is better than before; kept one, step 10" in str(choice)


share = st.integers(0, 20).map(lambda right: right / 20)


@given(st.lists(st.tuples(share, share), min_size=2, max_size=6), st.integers(0, 100))
def test_the_choice_is_what_looking_at_all_of_them_gives(values: list[tuple[float, float]], budget: int) -> None:
    scores = _scores(*values)
    lost = [round(100 * (values[0][1] - retention)) for _, retention in values]
    within = [index for index in range(1, len(values)) if lost[index] <= budget]
    choice = choose(scores, budget)
    if within:
        best = max(values[index][0] for index in within)
        least = min(lost[index] for index in within if values[index][0] == best)
        assert choice.step == 10 * next(i for i in within if values[i][0] == best and lost[i] == least)
    else:
        assert lost[choice.step // 10] == min(lost[1:])
    best_yet = scores[0]  # one after the other, as a training sees them: what is chosen then needs no earlier one again
    for end in range(2, len(scores) + 1):
        chosen = choose(scores[:end], budget)
        assert chosen.step in (best_yet.step, scores[end - 1].step)
        best_yet = next(score for score in scores if score.step == chosen.step)


def test_training_is_lost_after_so_many_checkpoints_over_the_budget_in_a_row() -> None:
    scores = _scores((0.0, 0.8), (0.1, 0.7), (0.2, 0.79), (0.3, 0.7), (0.4, 0.6))
    assert [is_lost(scores[:end], 5, 2) for end in range(1, 6)] == [False, False, False, False, True]
    assert is_lost(scores[:2], 5, 1)
    assert not is_lost(scores, 5, None)


def test_the_file_reads_back_up_to_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "forgetting.jsonl"
    assert read_scores(path) == []
    scores = _scores((0.0, None), (0.1, None))
    write_scores(path, scores)
    with path.open("a") as file:
        file.write('{"step": 20, "dom')
    assert read_scores(path) == scores
    path.write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="line 1 is no score of a checkpoint"):
        read_scores(path)


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("checkpoint_selection.forgetting_budget=-1", "forgetting_budget must be 0 to 100 points, or null, got -1"),
        (
            "checkpoint_selection.forgetting_budget=little",
            "checkpoint_selection.forgetting_budget: expected float | null, got 'little'",
        ),
        ("checkpoint_selection.patience=0", "patience must be at least 1, or null, got 0"),
        ("checkpoint_selection.score_samples=0", "score_samples must be at least 1, or null, got 0"),
        ("checkpoint_selection.metric=bleu", "metric must be one that scores single answers (exact_match"),
        ("checkpoint_selection.validation_share=1", "validation_share must be between 0 and 1"),
        ("checkpoint_selection.forgeting_budget=3", "did you mean `forgetting_budget`?"),
        ("dataset@checkpoint_selection.retention=own", "checkpoint_selection.retention.path: a value is required"),
    ],
)
def test_bad_settings_are_named_before_anything_loads(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(compose(overrides=[override]))
    assert expected in str(caught.value)


def test_a_budget_needs_scores() -> None:
    with pytest.raises(ConfigError, match="score_checkpoints must be true"):
        CheckpointSelection(score_checkpoints=False, forgetting_budget=5)


def test_the_validation_split_is_asked_and_never_the_test() -> None:
    cfg = compose()
    splits = build(cfg.dataset)
    selection = build(cfg.checkpoint_selection).select(splits)
    assert selection.domain_split == "validation"
    assert {sample.id for sample in selection.domain} == {sample.id for sample in splits.validation}
    assert {sample.meta["kind"] for sample in selection.retention} == {
        sample.meta["kind"] for sample in splits.retention
    }
    assert len(selection.retention) == 64
    assert (
        len(
            build(compose(overrides=["checkpoint_selection.forgetting_budget=5"]).checkpoint_selection)
            .select(splits)
            .retention
        )
        == 162
    )


def test_without_validation_training_samples_are_asked_and_a_budget_holds_some_out(few_shot_folder: Path) -> None:
    splits = load_dataset(few_shot_folder)
    plain = CheckpointSelection(retention=lambda: scene_splits(train_samples=1, test_samples=9))
    assert plain.divide(splits) is splits
    selection = plain.select(splits)
    assert (selection.domain_split, len(selection.domain), selection.retention_source, len(selection.retention)) == (
        "train",
        6,
        "the general retention set",
        9,
    )
    budget = dataclasses.replace(plain, forgetting_budget=5, validation_share=0.3)
    divided = budget.divide(splits)
    assert (len(divided.train), len(divided.validation)) == (4, 2)
    assert not {sample.id for sample in divided.train} & {sample.id for sample in divided.validation}
    assert {sample.id for sample in (*divided.train, *divided.validation)} == {sample.id for sample in splits.train}
    assert divided.plan["validation"] == {"samples": 2, "of": 6, "seed": 1}
    assert budget.select(divided).domain_split == "validation"


def test_groups_and_copies_stay_together_when_some_are_held_out(few_shot_folder: Path) -> None:
    splits = load_dataset(few_shot_folder)
    twice = [dataclasses.replace(sample, id=f"{sample.id}-{n}") for sample in splits.train for n in "ab"]
    divided = dataclasses.replace(splits, train=twice).hold_out_validation(0.25)
    pictures = [{sample.image for sample in samples} for samples in (divided.train, divided.validation)]
    assert not pictures[0] & pictures[1]
    assert divided.hold_out_validation(0.5) is divided
    with pytest.raises(ConfigError, match="made on demand"):
        scene_splits(train_samples=9, test_samples=1).hold_out_validation(0.2)
    with pytest.raises(DataError, match="1 groups cannot be divided"):
        dataclasses.replace(splits, train=splits.train[:1]).hold_out_validation(0.2)


def test_a_budget_without_a_retention_set_is_refused(few_shot_folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs a retention set, and the data has none"):
        CheckpointSelection(forgetting_budget=5).select(load_dataset(few_shot_folder))
    selection = CheckpointSelection().select(load_dataset(few_shot_folder))
    assert (list(selection.retention), selection.retention_source) == ([], "none")


def test_picked_samples_are_of_all_kinds() -> None:
    scenes = SceneDialogues(300, seed=5)
    drawn = [sample.id for sample in pick(scenes, 3)]
    assert len(set(drawn)) == 3
    assert drawn == [sample.id for sample in pick(scenes, 3)]
    listed = list(scenes[:120])
    picked = pick(listed, 18)
    assert {sample.meta["kind"] for sample in picked} == {sample.meta["kind"] for sample in listed}
    assert len(picked) == 18
    assert set(map(id, pick(listed, 9))) < set(map(id, picked))
    assert pick(listed, 500) == listed


def test_picked_samples_are_not_those_of_one_class_where_classes_come_in_turn() -> None:
    stars = [Sample(f"s#{n}", f"{n}", None, (Turn("?", str(n % 6)),), "en", {"kind": "type"}) for n in range(120)]
    assert {star.answer for star in pick(stars, 20)} == set("012345")  # every sixth is of the same type
    others = [dataclasses.replace(star, id=f"o{star.id}") for star in stars]
    mixture = Mixture({"stars": stars, "others": others}, {"stars": 1, "others": 1}, length=200)
    both = [sample.id[0] for sample in pick(mixture, 100)]  # every other one is of the same part
    assert min(both.count("s"), both.count("o")) > 20


# --- in training ------------------------------------------------------------------------------------------------------


@pytest.fixture
def configure(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Four violent steps with dropout on the random model, each step saved; scored on two samples of each kind."""

    def configure(*overrides: str, folder: str = "run") -> DictConfig:
        return compose(
            overrides=[
                f"model.path_or_id={random_model_folder}",
                "dataset=fewshot_background",
                f"dataset.path={few_shot_folder}",
                "trainer=debug",
                "trainer.max_steps=4",
                "trainer.per_device_train_batch_size=2",
                "trainer.learning_rate=0.1",
                "trainer.disable_tqdm=true",
                "checkpoint_selection.score_samples=2",
                "checkpoint_selection.retention.per_kind=1",
                f"output_dir={tmp_path / folder}",
                *overrides,
            ]
        )

    return configure


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("[am]*/*model.safetensors")))


def _assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


METHODS = {
    "lora": ["method.lora_dropout=0.3"],
    "checkpointing": ["method.lora_dropout=0.3", "trainer.activation_checkpointing=true", "feature_cache=false"],
    "adalora": ["method=adalora", "method.total_step=4", "method.tinit=1", "method.tfinal=1"],
    "pissa": ["method=pissa"],
    "prompt_tuning": ["method=prompt_tuning"],
    "p_tuning_v2": ["method=p_tuning_v2"],
    "full": ["method=components", "method.qformer=frozen", "method.language_model=frozen"],
}


@pytest.mark.parametrize("method", ["checkpointing", "adalora", "prompt_tuning", "p_tuning_v2", "full"])
def test_looking_changes_nothing(configure, method: str) -> None:
    overrides = METHODS[method]
    silent = run(configure(*overrides, "checkpoint_selection.score_checkpoints=false", folder="silent"))
    watched = run(configure(*overrides, folder="watched"))
    _assert_equal(_tensors(silent), _tensors(watched))
    assert not (silent / "forgetting.jsonl").exists()
    scores = read_scores(watched / "forgetting.jsonl")
    assert [score.step for score in scores] == [0, 1, 2, 3, 4]
    assert {(score.domain_n, score.retention_n) for score in scores} == {(2, 2)}
    losses = [
        [json.loads(line)["loss"] for line in (run_folder / "log.jsonl").read_text().splitlines()[:4]]
        for run_folder in (silent, watched)
    ]
    assert losses[0] == losses[1]


def test_the_domain_is_scored_by_content_and_exact_match_stands_beside_it(configure, few_shot_folder: Path) -> None:
    samples = load_dataset(few_shot_folder).train
    labels = {sample.answer: [] for sample in samples}
    named = MetricSettings(names=["accuracy", "exact_match"], labels=labels)
    assert primary_share(named, samples).name == "accuracy"
    assert primary_share(MetricSettings(names=["accuracy"], labels=["cat", "dog"]), samples).name == "exact_match"

    listed = ",".join(f"'{label}'" for label in labels)
    folder = run(configure("metrics=classification", f"metrics.labels=[{listed}]", "trainer.max_steps=1"))
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["forgetting"]
    assert (facts["metric"], facts["retention_metric"]) == ("accuracy", "exact_match")
    assert all(score.domain_exact_match is not None for score in read_scores(folder / "forgetting.jsonl"))
    assert (curves_of(Run(folder))["metric"], curves_of(Run(folder))["retention_metric"]) == ("accuracy", "exact_match")


def test_random_states_modes_and_what_trains_are_put_back(random_model_folder: Path) -> None:
    model, _ = load_pretrained(random_model_folder)
    model = attach(model, build(compose(overrides=["method.lora_dropout=0.3"]).method))
    model.train()
    model.get_base_model().lm_head.eval()
    expected = (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
    )
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with preserving_state(model):
        model.eval()
        model.requires_grad_(False)
        torch.rand(3), random.random(), np.random.rand()
    assert (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
    ) == (expected)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


@pytest.mark.parametrize("method", ["pissa", "prompt_tuning"])
def test_the_first_score_is_the_base_models_and_the_last_the_saved_ones(
    configure, method: str, random_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[str]] = []

    def remember(*arguments, **options):
        records = generate_predictions(*arguments, **options)
        if arguments[3].max_new_tokens != EXAMPLE_TOKENS:
            answers.append([record.prediction for record in records])
        return records

    monkeypatch.setattr("vglm.evaluation.checkpoint_selection.generate_predictions", remember)
    cfg = configure(*METHODS[method])
    folder = run(cfg)
    selection = build(cfg.checkpoint_selection).select(build(cfg.dataset))
    for adapter, (domain, retention) in ((None, answers[:2]), (folder / "adapter", answers[-2:])):
        model, processor = load_pretrained(random_model_folder, adapter=adapter)
        for samples, remembered in ((selection.domain, domain), (selection.retention, retention)):
            longest = max(len(processor.tokenizer(sample.answer)["input_ids"]) for sample in samples)
            expected = generate_predictions(model, processor, samples, Decoding(max_new_tokens=longest + 4))
            assert [record.prediction for record in expected] == remembered


def _rig(monkeypatch: pytest.MonkeyPatch, domain: list[float], retention: list[float]) -> None:
    """Scores as said, at one checkpoint after another."""
    values = iter([value for pair in zip(domain, retention, strict=True) for value in pair])
    monkeypatch.setattr(CheckpointSelection, "_score", lambda *_: (next(values), None))


@pytest.mark.parametrize("method", ["lora", "adalora", "full"])
def test_the_chosen_checkpoint_is_saved_and_stands_the_contract(
    configure, method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _rig(monkeypatch, domain=[0.0, 0.2, 0.6, 0.9, 0.5], retention=[0.8, 0.8, 0.78, 0.7, 0.8])
    budget = [
        "checkpoint_selection.forgetting_budget=5",
        "checkpoint_selection.validation_share=0.3",
        "trainer.save_total_limit=1",
    ]
    folder = run(configure(*METHODS[method], *budget))
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["forgetting"]
    assert (facts["chosen_step"], facts["warning"], facts["stopped_early"]) == (2, None, False)
    assert (facts["metric"], facts["domain_split"], facts["retention"]) == (
        "exact_match",
        "validation",
        "the general retention set",
    )
    assert f"{facts['reason']}\n" in capsys.readouterr().out
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]  # the limit of one spared it
    plan = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    assert plan["plan"]["validation"] == {"samples": 2, "of": 6, "seed": 1}
    if method in ("lora", "full"):  # the others are saved in another form than they are trained in
        checkpoint = load_file(folder / "checkpoint-2" / "trainable.safetensors")
        saved = _tensors(folder)
        for name, tensor in checkpoint.items():
            assert torch.equal(saved[name.replace(".default", "")], tensor)


def test_a_report_says_what_was_chosen_and_that_the_budget_was_exceeded(
    configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rig(monkeypatch, domain=[0.0, 0.2, 0.6], retention=[0.8, 0.7, 0.5])
    budget = ["checkpoint_selection.forgetting_budget=5", "checkpoint_selection.validation_share=0.3"]
    folder = run(configure(*budget))
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["forgetting"]
    assert (facts["chosen_step"], facts["stopped_early"]) == (1, True)
    assert facts["reason"].startswith("FORGETTING BUDGET EXCEEDED")
    switches = ["splits=train", "image_use=false", "baselines=false", "max_new_tokens=4"]
    report = evaluate.run(compose("evaluate", [f"run={folder}", *switches]))
    evaluation = read_evaluation(report)
    assert "FORGETTING BUDGET EXCEEDED" in [stamp.text for stamp in evaluation.stamps]
    assert str(evaluation.facts["checkpoint"]).endswith("and the general retention set; training was stopped early")
    assert "FORGETTING BUDGET EXCEEDED" in (report / "report" / "index.html").read_text(encoding="utf-8")
    curves = json.loads((report / "curves.json").read_text(encoding="utf-8"))
    assert curves["forgetting"] == [
        {"step": 0, "domain": 0.0, "retention": 0.8, "domain_n": 2, "retention_n": 2, "domain_exact_match": None},
        {"step": 1, "domain": 0.2, "retention": 0.7, "domain_n": 2, "retention_n": 2, "domain_exact_match": None},
        {"step": 2, "domain": 0.6, "retention": 0.5, "domain_n": 2, "retention_n": 2, "domain_exact_match": None},
    ]
    assert [sorted(entry) for entry in curves["learning"]] == 2 * [["learning_rate", "loss", "step"]]
    del curves["learning"], curves["forgetting"]
    assert curves == {
        "metric": "exact_match",
        "retention_metric": "exact_match",
        "domain_split": "validation",
        "budget_points": 5,
        "chosen_step": 1,
        "stopped_early": True,
    }


def test_an_evaluation_takes_the_samples_that_were_trained_on_for_training_samples(configure) -> None:
    budget = ["checkpoint_selection.forgetting_budget=100", "checkpoint_selection.validation_share=0.3"]
    folder = run(configure(*budget, "trainer.max_steps=1"))
    divided = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["splits"]
    trained = {*divided["train"]["ids"]}
    switches = [f"run={folder}", "image_use=false", "max_new_tokens=4", "baselines=false"]
    report = evaluate.run(compose("evaluate", [*switches, "splits=[train,validation]"]))
    assert {loss.id for loss in read_losses(report)} == trained
    records = read_predictions(report / "after" / "predictions.jsonl")
    assert {record.id for record in records if record.split == "train"} == trained
    assert {record.id for record in records if record.split == "validation"} == {*divided["validation"]["ids"]}


def test_a_limit_does_not_hide_that_the_retention_set_chose_the_checkpoint(
    configure, few_shot_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(few_shot_folder, tmp_path / "data")
    general = [{"img": None, "prompt": f"{n}加{n}？", "label": f"{2 * n}。"} for n in range(1, 5)]
    (data / "probe.json").write_text(json.dumps(general), encoding="utf-8")
    budget = ["checkpoint_selection.forgetting_budget=100", "checkpoint_selection.validation_share=0.3"]
    folder = run(configure(f"dataset.path={data}", *budget, "dataset.retention=probe.json", "trainer.max_steps=1"))
    switches = [f"run={folder}", "splits=retention", "image_use=false", "max_new_tokens=4", "baselines=false"]
    for number, limit in enumerate(("limit=2", "limit=null")):
        output = f"output_dir={folder / str(number)}"
        evaluation = read_evaluation(evaluate.run(compose("evaluate", [*switches, limit, output])))
        assert "the retention set of this report" in str(evaluation.facts["checkpoint"])


def test_a_run_that_was_not_scored_has_a_learning_curve_only(tmp_path: Path) -> None:
    log = [{"step": 5, "loss": 1.5, "learning_rate": 0.1, "epoch": 1.0}, {"step": 5, "train_runtime": 3.0}]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in log))
    (tmp_path / "run.json").write_text(json.dumps(run_record()))
    curves = curves_of(Run(tmp_path))
    assert curves["learning"] == [{"step": 5, "loss": 1.5, "learning_rate": 0.1}]
    assert (curves["forgetting"], curves["chosen_step"], curves["budget_points"]) == ([], None, None)
    assert describe_choice(None, {}) == ({}, ())
    (tmp_path / "log.jsonl").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        curves_of(Run(tmp_path))


def test_the_report_admits_that_its_retention_set_was_chosen_by(few_shot_folder: Path) -> None:
    retention = load_dataset(few_shot_folder).train
    selection = CheckpointSelection().select(dataclasses.replace(load_dataset(few_shot_folder), retention=retention))
    reason = {
        "reason": "kept step 2",
        "metric": "exact_match",
        "domain_split": "validation",
        "retention": selection.retention_source,
    }
    choice = {"chosen_step": 2, "warning": None, "stopped_early": False, "retention_sha256": selection.retention_sha256}
    record = ForgettingRecord(**reason, **choice)
    facts, stamps = describe_choice(record, {"retention": retention})
    assert "the retention set of this report" in str(facts["checkpoint"])
    assert stamps == ()
    assert "the retention set of this report" not in str(describe_choice(record, {})[0]["checkpoint"])


def test_a_resumed_run_has_the_curve_and_the_adapter_of_an_uninterrupted_one(configure, tmp_path: Path) -> None:
    whole = run(configure(*METHODS["lora"], folder="whole"))
    with interrupted_in_step(4):
        run(configure(*METHODS["lora"], folder="broken"))
    curve = tmp_path / "broken" / "forgetting.jsonl"
    lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
    curve.write_text("".join(lines[:3]) + lines[3][:9], encoding="utf-8")  # killed while it scored step 3
    resumed = run(compose(overrides=[f"resume={tmp_path / 'broken'}"]))
    _assert_equal(_tensors(whole), _tensors(resumed))
    assert (resumed / "forgetting.jsonl").read_bytes() == (whole / "forgetting.jsonl").read_bytes()
    assert [score.step for score in read_scores(resumed / "forgetting.jsonl")] == [0, 1, 2, 3, 4]


def test_a_budget_needs_checkpoints(configure, tmp_path: Path) -> None:
    budget = [
        "checkpoint_selection.forgetting_budget=5",
        "checkpoint_selection.validation_share=0.3",
        "trainer.save_strategy='no'",
    ]
    with pytest.raises(ConfigError, match="save_strategy=no saves none"):
        run(configure(*budget))
    assert list(tmp_path.iterdir()) == []
