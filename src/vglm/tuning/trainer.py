"""The training loop: transformers' own Trainer with exact checkpoints, a log file and a quiet progress bar.

A line of `log.jsonl`:

    {"step": 10, "epoch": 2.0, "loss": 1.2034, "grad_norm": 0.71, "learning_rate": 0.0019}

A checkpoint holds exactly the tensors that train (for LoRA a few MB, never the base) and the states of optimizer,
schedule and random generators, so a resumed run continues bit for bit, whatever the method.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import SaveStrategy, TrainOutput

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import CheckpointError, ConfigError
from vglm.tuning.adalora import RankAllocation, is_adalora, load_allocation, save_allocation
from vglm.tuning.checkpoint_scores import CheckpointScores
from vglm.tuning.components import learning_rate_of
from vglm.tuning.memory import peak_memory, reset_peak_memory
from vglm.tuning.run_folder import write_text

_WEIGHTS_NAME = "trainable.safetensors"


@dataclass(frozen=True)
class Tracker:
    """Where the curves of a run go besides its own log.

    Attributes:
        report_to: As in `TrainingArguments`.
        project: Name of the project at Weights & Biases.
        mode: `offline` writes a local Weights & Biases run and needs no account; `disabled` turns it off.
    """

    report_to: Literal["none", "tensorboard", "wandb"]
    project: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None

    @contextmanager
    def writing_to(self, run_folder: Path) -> Iterator[None]:
        """Have the tracker keep its files in the run folder, through the environment variables that it reads."""
        variables = {
            "TENSORBOARD_LOGGING_DIR": str(run_folder / "tensorboard"),
            "WANDB_DIR": str(run_folder),
            "WANDB_PROJECT": self.project,
            "WANDB_MODE": self.mode,
        }
        before = {name: os.environ.get(name) for name in variables}
        _set_environment(variables | {name: before[name] for name, value in variables.items() if value is None})
        try:
            if self.report_to == "wandb":
                with _explained_wandb():
                    yield
            else:
                yield
        finally:
            _set_environment(before)


@contextmanager
def _explained_wandb() -> Iterator[None]:
    """Turn what Weights & Biases refuses into advice, and close its run in any case."""
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise ConfigError(f"tracker: {error} Or keep the curves here: tracker.mode=offline, tracker=none.") from error
    finally:
        wandb.finish()
        wandb.teardown()  # so that the next run of this process reads the environment anew


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class WorkbenchTrainer(Trainer):
    """`transformers.Trainer` that saves, and resumes from, exactly the parameters that train.

    Args:
        model: As returned by `attach`.
        args: The trainer's settings.
        train_dataset: What to learn from.
        data_collator: Makes a batch of some samples.
        learning_rates: For parts of the model that learn at another rate than `args.learning_rate`, see
            `learning_rate_of`.
        scores: Scores checkpoints, and may choose the one that training ends with; none if not given.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: Sequence[Sample],
        data_collator: Collator,
        learning_rates: Mapping[str, float | str] = MappingProxyType({}),
        scores: CheckpointScores | None = None,
    ) -> None:
        self.learning_rates = learning_rates
        self.scores = scores
        try:
            super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=data_collator)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"trainer: {error}") from error
        if data_collator.packing is not None and _has_virtual_tokens(model):
            raise ConfigError(
                "packing does not go with prompt methods (P-tuning, prompt tuning): their virtual tokens stand once"
                " before each row, so only the first sample of a row would see them. Set packing=null."
            )
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(_ProgressBar())
        self.add_callback(_LogFile(Path(str(args.output_dir)) / "log.jsonl"))
        if is_adalora(model):
            self.add_callback(RankAllocation())
        if scores is not None:
            self._check_scores(scores)
            self.add_callback(scores)

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train as `Trainer.train`, to the checkpoint that `scores` chooses if it does.

        Returns:
            The outcome. Its metrics say besides how much memory training took at its peak, and what part of the time
            went into scoring checkpoints.
        """
        reset_peak_memory()
        outcome = super().train(*arguments, **options)
        outcome.metrics["peak_memory_bytes"] = peak_memory()
        if self.scores is not None:
            outcome.metrics["scoring_seconds"] = round(self.scores.seconds, 4)
            if (choice := self.scores.choice) is not None:
                print(choice)
                if choice.step != self.state.global_step:
                    self._load_from_checkpoint(str(Path(str(self.args.output_dir)) / f"checkpoint-{choice.step}"))
        return outcome

    def facts(self, outcome: TrainOutput) -> dict[str, Any]:
        """What came of training, for run.json.

        Args:
            outcome: As returned by `train`.
        """
        return {"training": outcome.metrics, "forgetting": None if self.scores is None else self.scores.as_dict()}

    def _check_scores(self, scores: CheckpointScores) -> None:
        """Refuse what cannot be scored, or chosen from."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "training: a model in shards cannot be scored while it trains. Set training.score_checkpoints=false."
            )
        if scores.budget_points is not None and self.args.save_strategy == SaveStrategy.NO:
            raise ConfigError(
                "training.forgetting_budget chooses among saved checkpoints, and trainer.save_strategy=no saves none."
            )

    def trained_model(self) -> Any:
        """The model as it will be used: without the autocast that mixed precision wraps around it for training."""
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer, its groups of parameters divided by learning rate."""
        optimizer = super().create_optimizer(model)
        names = {parameter: name for name, parameter in self._trainable(model).items()}
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            by_rate: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rate = learning_rate_of(names[parameter], group["lr"], self.learning_rates)
                by_rate.setdefault(rate, []).append(parameter)
            groups += [{**group, "params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
        optimizer.param_groups[:] = groups
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the trainable tensors of a checkpoint; Trainer adds its own states, `trainer_state.json` last."""
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: each.detach().cpu().contiguous() for name, each in self._trainable().items()}
        save_file(tensors, folder / _WEIGHTS_NAME)
        if is_adalora(self.model):
            save_allocation(self.accelerator.unwrap_model(self.model), folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Put a checkpoint's tensors back.

        Raises:
            CheckpointError: The file is unreadable, or holds other tensors than those that train now.
        """
        path = Path(resume_from_checkpoint) / _WEIGHTS_NAME
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            advice = "Delete that checkpoint to resume from the one before."
            raise CheckpointError(f"{path} cannot be read: {error}. {advice}") from error
        own = self._trainable(model)
        odd = set(own) ^ set(stored) or {name for name in own if own[name].shape != stored[name].shape}
        if odd:
            raise CheckpointError(
                f"{path} holds other tensors than those that train now, {sorted(odd)[0]} for one."
                " Resume with the method the run was started with."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(stored[name])
        if is_adalora(model or self.model):
            load_allocation(self.accelerator.unwrap_model(model or self.model), path.parent)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put a checkpoint's optimizer and schedule back.

        Raises:
            CheckpointError: A file is unreadable.
        """
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (EOFError, RuntimeError, UnpicklingError) as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0] or "a file is empty"
            raise CheckpointError(
                f"{checkpoint}: the states of optimizer and schedule cannot be read ({reason}). Delete that checkpoint"
                " to resume from the one before."
            ) from error

    def _trainable(self, model: nn.Module | None = None) -> dict[str, nn.Parameter]:
        unwrapped = self.accelerator.unwrap_model(model or self.model)
        return {name: each for name, each in unwrapped.named_parameters() if each.requires_grad}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """With `train_sampling_strategy=group_by_length`, batches of similar length from the lengths of the texts."""
        samples: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        if not hasattr(samples, "lengths"):
            raise ConfigError(
                f"trainer.train_sampling_strategy=group_by_length needs a training set that knows its lengths, as"
                f" TrainingSequences does; {type(samples).__name__} does not."
            )
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=samples.lengths.tolist())


def _has_virtual_tokens(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


class _LogFile(TrainerCallback):
    """Writes each logged step as a line of JSON; a resumed run drops the lines behind its checkpoint first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            is_resumed = state.global_step > 0 and self.path.exists()
            lines = self.path.read_text(encoding="utf-8").splitlines() if is_resumed else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            entry = dict(state.log_history[-1])
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": entry.pop("step"), **entry}) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:  # half a line, from a run that was killed while writing it
        return float("inf")


class _ProgressBar(ProgressCallback):
    """The usual bar, with the loss beside it instead of a printed dictionary for every logged step."""

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        logged = state.log_history[-1]
        if self.training_bar is not None and "loss" in logged:
            self.training_bar.set_postfix(loss=f"{logged['loss']:.4f}")
