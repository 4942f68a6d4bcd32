"""Checkpoints hold what trains and nothing else, resuming is exact, and the log has every logged step once."""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import interrupted_in_step
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments, set_seed

from vglm.config import build, compose
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.errors import CheckpointError, WorkbenchError, typed
from vglm.evaluation.checkpoint_selection import CheckpointScores
from vglm.model.loading import load_pretrained
from vglm.runs import read_scores
from vglm.tuning.components import ComponentTuning
from vglm.tuning.methods import attach
from vglm.tuning.run_folder import newest_checkpoint, open_run
from vglm.tuning.tracker import Tracker
from vglm.tuning.trainer import WorkbenchTrainer

STEPS = 6


@pytest.fixture
def make_trainer(random_model_folder: Path, few_shot_folder: Path):
    """A trainer for the random model: LoRA with dropout, or full tuning; same seed, same run."""

    def make(
        folder: Path,
        method: ComponentTuning | list[str] | None = None,
        scores: CheckpointScores | None = None,
        skipped_steps: int = 0,
    ) -> WorkbenchTrainer:
        set_seed(3)
        model, processor = load_pretrained(random_model_folder)
        if not isinstance(method, ComponentTuning):
            method = build(compose(overrides=method or ["method.lora_dropout=0.3"]).method)
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=0.01,
            lr_scheduler_type="cosine",
            logging_steps=1,
            save_steps=2,
            use_cpu=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=False,
            disable_tqdm=True,
            seed=3,
        )
        samples = load_dataset(few_shot_folder).train
        rates = {"projection": 0.001, "lora_B": "2x"}
        return WorkbenchTrainer(
            attach(model, method), arguments, samples, Collator(processor), rates, scores, skipped_steps
        )

    return make


def _log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def _trained(trainer: WorkbenchTrainer) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize(
    "method",
    [
        None,
        ComponentTuning(projection="full", language_model="full"),
        ["method=components"],
        ["method=adalora", "trainer.max_steps=6", "method.tinit=1", "method.tfinal=1"],
        ["method=pissa"],
        ["method=p_tuning"],
        ["method=p_tuning_v2_projection"],
    ],
    ids=["lora", "full", "components", "adalora", "pissa", "p_tuning", "p_tuning_v2_projection"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    make_trainer, method: ComponentTuning | list[str] | None, tmp_path: Path
) -> None:
    whole = make_trainer(tmp_path / "whole", method)
    whole.train()

    broken = make_trainer(tmp_path / "broken", method)
    with interrupted_in_step(6):
        broken.train()
    assert [line["step"] for line in _log(tmp_path / "broken")] == [1, 2, 3, 4, 5]
    with (tmp_path / "broken" / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # as a kill leaves it

    resumed = make_trainer(tmp_path / "broken", method)
    checkpoint = newest_checkpoint(tmp_path / "broken")
    assert checkpoint == tmp_path / "broken" / "checkpoint-4"
    resumed.train(resume_from_checkpoint=str(checkpoint))

    assert [line["step"] for line in _log(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    assert _log(tmp_path / "broken") == _log(tmp_path / "whole")
    for name, parameter in _trained(whole).items():
        assert torch.equal(parameter, _trained(resumed)[name]), name


def test_a_checkpoint_holds_exactly_the_trainable_tensors(make_trainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    files = sorted(path.name for path in checkpoint.iterdir())
    assert files == ["optimizer.pt", "rng_state.pth", "scheduler.pt", "trainable.safetensors", "trainer_state.json"]
    stored = load_file(checkpoint / "trainable.safetensors")
    trained = _trained(trainer)
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], trained[name]) for name in trained)

    moved = {name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == trained.keys()


@pytest.mark.parametrize(("limit", "steps"), [(1, {6}), (2, {4, 6}), (3, {2, 4, 6}), (4, {2, 4, 6}), (None, {2, 4, 6})])
def test_so_many_checkpoints_stay(make_trainer, limit: int | None, steps: set[int], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.args.save_total_limit = limit
    trainer.train()
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", *(f"checkpoint-{step}" for step in steps)}
    assert trainer.args.save_total_limit == limit


def test_the_chosen_checkpoint_alone_stays_in_the_end(make_trainer, tmp_path: Path) -> None:
    scores = _scoring(tmp_path, {0: 0.9, 2: 0.88, 4: 0.5, 6: 0.2}, budget_points=5)
    trainer = make_trainer(tmp_path, scores=scores)
    trainer.args.save_total_limit = 1
    trainer.train()
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-2"]


def test_no_checkpoint_is_half_removed(make_trainer, tmp_path: Path) -> None:
    seen: list[set[str]] = []
    is_watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if is_watching and event == "os.remove" and (tmp_path / "checkpoint-4").is_dir():
            folders = [path for path in tmp_path.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
            seen.extend({path.name for path in folder.iterdir() if path.name[0] != "."} for folder in folders)

    trainer = make_trainer(tmp_path)
    trainer.args.save_total_limit = 1
    sys.addaudithook(watch)
    try:
        trainer.train()
    finally:
        is_watching = False
    whole = {"optimizer.pt", "rng_state.pth", "scheduler.pt", "trainable.safetensors", "trainer_state.json"}
    assert seen
    assert all(names == whole for names in seen)


def _scoring(folder: Path, retention: dict[int, float], **options: Any) -> CheckpointScores:
    """Scores by the number of the call, of a function that disturbs what it can."""
    calls = iter(retention.values())

    def score(model: Any) -> dict[str, Any]:
        model.eval()
        model.requires_grad_(False)
        torch.rand(9)
        return {"domain": 0.5, "retention": next(calls), "domain_n": 3, "retention_n": 4}

    return CheckpointScores(folder / "forgetting.jsonl", score, **options)


@pytest.mark.parametrize(
    "method",
    [
        None,
        ComponentTuning(projection="full", language_model="full"),
        ["method=adalora", "trainer.max_steps=6", "method.tinit=1", "method.tfinal=1"],
        ["method=pissa"],
        ["method=p_tuning_v2_projection"],
    ],
    ids=["lora", "full", "adalora", "pissa", "p_tuning_v2_projection"],
)
def test_training_ends_with_the_chosen_checkpoint(
    make_trainer, method: ComponentTuning | list[str] | None, tmp_path: Path
) -> None:
    scores = _scoring(tmp_path / "chosen", {0: 0.9, 2: 0.8, 4: 0.88, 6: 0.2}, budget_points=5)
    trainer = make_trainer(tmp_path / "chosen", method, scores)
    outcome = trainer.train()
    plain = make_trainer(tmp_path / "plain", method)
    plain.train()
    assert _log(tmp_path / "chosen") == _log(tmp_path / "plain")
    saved = load_file(tmp_path / "plain" / "checkpoint-4" / "trainable.safetensors")
    trained = _trained(trainer)
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)
    assert trainer.facts(outcome)["forgetting"]["chosen_step"] == 4


def test_training_stops_when_too_much_is_forgotten(make_trainer, tmp_path: Path) -> None:
    scores = _scoring(tmp_path, {0: 0.9, 2: 0.8, 4: 0.7}, budget_points=5, patience=2)
    trainer = make_trainer(tmp_path, scores=scores)
    outcome = trainer.train()
    assert trainer.state.global_step == 4
    assert (scores.is_stopped, scores.choice.step, scores.choice.lost_points) == (True, 2, 10.0)
    assert trainer.facts(outcome)["forgetting"]["stopped_early"]
    saved = load_file(tmp_path / "checkpoint-2" / "trainable.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in _trained(trainer).items())

    resumed = make_trainer(tmp_path, scores=_scoring(tmp_path, {}, budget_points=5, patience=2))  # nothing is scored
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.scores.is_stopped
    assert all(torch.equal(saved[name], tensor) for name, tensor in _trained(resumed).items())
    assert [scored.step for scored in read_scores(tmp_path / "forgetting.jsonl")] == [0, 2, 4]


def test_a_resumed_run_whose_scores_are_lost_is_refused(make_trainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).train()
    scores = _scoring(tmp_path, {})
    with pytest.raises(CheckpointError, match="has no score of the model before training"):
        make_trainer(tmp_path, scores=scores).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_the_last_state_is_scored_though_it_is_not_saved(make_trainer, tmp_path: Path) -> None:
    scores = _scoring(tmp_path, {0: 0.9, 6: 0.8})
    trainer = make_trainer(tmp_path, scores=scores)
    trainer.args.save_strategy = "no"
    trainer.train()
    assert [scored.step for scored in scores.scores] == [0, 6]


def test_a_checkpoint_of_another_method_is_refused(make_trainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).train()
    other = make_trainer(tmp_path, ComponentTuning(projection="full"))
    with pytest.raises(CheckpointError, match="holds other tensors than those that train now"):
        other.train(resume_from_checkpoint=str(newest_checkpoint(tmp_path)))


def test_a_damaged_checkpoint_is_named(make_trainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).train()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    weights = checkpoint / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"trainable\.safetensors cannot be read.*Delete that checkpoint"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("content", [b"", b"12", b"PK\x03\x04 and no more"])
def test_a_damaged_optimizer_state_is_named(make_trainer, tmp_path: Path, content: bytes) -> None:
    make_trainer(tmp_path).train()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    (checkpoint / "optimizer.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optimizer and schedule cannot be read.*Delete that checkpoint"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


class _Payload:
    """A pickle that would leave a file behind if it were ever loaded as one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt"])
def test_a_pickle_in_a_checkpoint_is_never_run(make_trainer, tmp_path: Path, name: str) -> None:
    trainer = make_trainer(tmp_path)
    trainer.args.max_steps = 2
    trainer.train()
    payload = tmp_path / "was_run"
    torch.save(_Payload(payload), tmp_path / "checkpoint-2" / name)
    if name in ("training_args.bin", "scaler.pt"):  # which nobody reads here
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    else:
        with pytest.raises(CheckpointError, match=r"cannot be read .*Delete that checkpoint"):
            make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not payload.exists()


@pytest.mark.parametrize(
    "names", [["optimizer.pt"], ["scheduler.pt"], ["rng_state.pth"], ["optimizer.pt", "rng_state.pth"]]
)
def test_a_checkpoint_that_lacks_a_file_is_refused(make_trainer, tmp_path: Path, names: list[str]) -> None:
    make_trainer(tmp_path).train()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    for name in names:
        (checkpoint / name).unlink()
        if name == "rng_state.pth":
            os.mkfifo(checkpoint / name)  # which would never end
    with pytest.raises(CheckpointError, match=f"lacks {', '.join(names)}, without which training would not go on"):
        make_trainer(tmp_path).train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize(
    "damage",
    [
        {"train_batch_size": {"": None}},
        {"global_step": "4"},
        {"global_step": None},
        {"global_step": 5},
        {"global_step": -1},
        {"max_steps": [6]},
        {"epoch": "soon"},
        {"log_history": {"step": 1}},
        {"log_history": [1]},
        {"log_history": [{"loss": 1}]},
        {"stateful_callbacks": []},
        {"is_local_process_zero": []},
        {"invented": 1},
    ],
    ids=str,
)
def test_a_damaged_state_is_named(make_trainer, tmp_path: Path, damage: dict[str, Any]) -> None:
    make_trainer(tmp_path).train()
    path = tmp_path / "checkpoint-4" / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(CheckpointError, match=rf"trainer_state\.json is damaged: {next(iter(damage))}"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(path.parent))


def test_a_training_at_its_last_step_is_not_trained_further(make_trainer, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path)
    facts = whole.train().metrics
    log = (tmp_path / "log.jsonl").read_text().splitlines()
    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.glob("checkpoint-*/*")}
    for _ in range(2):
        again = make_trainer(tmp_path)
        outcome = again.train(resume_from_checkpoint=tmp_path / "checkpoint-6")
        assert again.state.global_step == STEPS
        assert all(torch.equal(tensor, _trained(whole)[name]) for name, tensor in _trained(again).items())
        assert (tmp_path / "log.jsonl").read_text().splitlines()[:-1] == log[:-1]
        assert outcome.metrics["train_loss"] == facts["train_loss"] > 0
        assert outcome.metrics["train_runtime"] > 0.5 * facts["train_runtime"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("checkpoint-*/*")} == checkpoints


class _Terminate(TrainerCallback):
    """Ask this process to terminate in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("logging_steps", [1, 4])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_request_to_terminate_saves_a_checkpoint_that_continues_bit_for_bit(
    make_trainer, step: int, logging_steps: int, tmp_path: Path
) -> None:
    def make(name: str, unscored: int = 0) -> WorkbenchTrainer:
        retention = {step: 0.9 - 0.01 * step for step in (0, 2, 4, 6) if step >= unscored}
        scores = _scoring(tmp_path / name, retention, budget_points=50)
        trainer = make_trainer(tmp_path / name, scores=scores)
        trainer.args.logging_steps = logging_steps
        return trainer

    whole = make("whole")
    facts = whole.train().metrics
    broken = make("broken")
    broken.add_callback(_Terminate(step))
    with pytest.raises(SystemExit) as caught:
        broken.train()
    assert caught.value.code == 143
    checkpoint = newest_checkpoint(tmp_path / "broken")
    assert checkpoint == tmp_path / "broken" / f"checkpoint-{step}"
    assert [scored.step for scored in read_scores(tmp_path / "broken" / "forgetting.jsonl")] == [*range(0, step, 2)]
    resumed = make("broken", unscored=step)
    outcome = resumed.train(resume_from_checkpoint=checkpoint)
    assert all(torch.equal(tensor, _trained(whole)[name]) for name, tensor in _trained(resumed).items())
    assert _log(tmp_path / "broken") == _log(tmp_path / "whole")
    assert outcome.metrics["train_loss"] == pytest.approx(facts["train_loss"], rel=1e-6)
    steps = [
        [scored.step for scored in read_scores(tmp_path / name / "forgetting.jsonl")] for name in ("whole", "broken")
    ]
    assert steps[0] == steps[1] == [0, 2, 4, 6]


@pytest.mark.parametrize("room", [10_000, 40_000], ids=["weights", "optimizer"])
def test_a_full_disk_leaves_the_last_checkpoint(
    make_trainer, room: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fill(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    def train() -> None:
        with open_run(tmp_path / "run") as folder:
            trainer = make_trainer(folder)
            trainer.add_callback(Fill())
            trainer.train()

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(WorkbenchError, match=r"(cannot be written|cannot write to)"):
            train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint-2"
    assert f"Stopped. Continue with: {typed('train')} resume=" in capsys.readouterr().err
    resumed = make_trainer(tmp_path / "run")
    resumed.train(resume_from_checkpoint=newest_checkpoint(tmp_path / "run"))
    assert resumed.state.global_step == STEPS


def test_a_loss_that_is_no_number_ends_training_with_the_samples_named(make_trainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.learning_rates = {"lora_B": 1e30}
    trainer.args.save_steps = 1
    with pytest.raises(WorkbenchError, match=r"is not finite in step \d.*dataset\.json#\d.*as they were") as caught:
        trainer.train()
    assert len(str(caught.value)) < 1000
    checkpoints = list(tmp_path.glob("checkpoint-*"))
    assert 0 < len(checkpoints) < STEPS
    for checkpoint in checkpoints:
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(checkpoint / "trainable.safetensors").values())
    losses = [line["loss"] for line in _log(tmp_path)]
    assert len(losses) == len(checkpoints)
    assert all(loss > 0 for loss in losses)


class _Spoil(TrainerCallback):
    """Has the model answer with no number in some steps."""

    def __init__(self, trainer: WorkbenchTrainer, *steps: int) -> None:
        self.steps = steps
        trainer.add_callback(self)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        def spoil(module: Any, inputs: Any, output: Any) -> Any:
            return output * float("nan") if state.global_step + 1 in self.steps else None

        self.hook = model.get_base_model().model.language_model.final_layernorm.register_forward_hook(spoil)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.hook.remove()


def test_steps_that_are_no_number_are_left_out_as_often_as_allowed(
    make_trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before: list[dict[str, torch.Tensor]] = []

    class Look(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            before.append(_trained(trainer))

    trainer = make_trainer(tmp_path, skipped_steps=2)
    trainer.add_callback(Look())
    _Spoil(trainer, 2, 3)
    outcome = trainer.train()
    assert all(torch.equal(before[0][name], before[2][name]) for name in before[0])
    assert any(not torch.equal(before[2][name], before[3][name]) for name in before[0])
    assert [line["step"] for line in _log(tmp_path)] == [1, *range(4, STEPS + 1)]  # no loss of steps left out
    assert all(line["loss"] > 0 for line in _log(tmp_path))
    facts = trainer.facts(outcome)["skipped_steps"]
    assert len(facts) == 2
    assert "the loss is not finite in step 2, at the samples" in facts[0]
    assert "Left out, 2 of at most 2" in caplog.text

    resumed = make_trainer(tmp_path, skipped_steps=2)
    _Spoil(resumed, 5)
    with pytest.raises(WorkbenchError, match=r"the loss is not finite in step 5, at the samples .*dataset\.json#"):
        resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-4")


def test_adalora_takes_no_importance_from_a_step_that_is_left_out(make_trainer, tmp_path: Path) -> None:
    method = ["method=adalora", f"trainer.max_steps={STEPS}", "method.tinit=1", "method.tfinal=1"]
    trainer = make_trainer(tmp_path, method, skipped_steps=1)
    _Spoil(trainer, 2)
    trainer.train()
    allocator = trainer.trained_model().base_model.rankallocator
    assert trainer.state.global_step == STEPS
    assert all(bool(importance.isfinite().all()) for importance in allocator.exp_avg_ipt.values())
    assert all(bool(tensor.isfinite().all()) for tensor in _trained(trainer).values())


def test_one_process_trains_on_one_gpu(make_trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = TrainingArguments

    def on_two_gpus(**options: Any) -> TrainingArguments:
        arguments = usual(**options)
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setitem(make_trainer.__globals__, "TrainingArguments", on_two_gpus)
    trainer = make_trainer(tmp_path)
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == 4


def test_the_tracker_changes_the_environment_only_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with Tracker("tensorboard", project="birds", mode="offline").writing_to(tmp_path):
        assert os.environ["WANDB_MODE"] == "offline"
        assert os.environ["WANDB_PROJECT"] == "birds"
        assert os.environ["WANDB_DIR"] == str(tmp_path)
    assert os.environ["WANDB_MODE"] == "online"
    assert "WANDB_PROJECT" not in os.environ


def test_parts_learn_at_their_own_rates(make_trainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ["method=components"])
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    rates = {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates.keys() == _trained(trainer).keys()
    for name, rate in rates.items():
        assert rate == (0.001 if "language_projection" in name else 0.02 if ".lora_B." in name else 0.01)
