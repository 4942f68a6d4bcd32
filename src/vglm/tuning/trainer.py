"""The training loop: transformers' own Trainer with exact checkpoints, a log file and a quiet progress bar.

A line of `log.jsonl`:

    {"step": 10, "epoch": 2.0, "loss": 1.2034, "grad_norm": 0.71, "learning_rate": 0.0019}

A checkpoint holds exactly the tensors that train (for LoRA a few MB, never the base) and the states of optimizer,
schedule and random generators, so a resumed run continues bit for bit, with every method. Several processes divide the
same batches that one process would use.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object, save_fsdp_optimizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import SaveStrategy, TrainOutput, sort_checkpoints

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import CheckpointError, ConfigError, WorkbenchError, brief
from vglm.files import append_json_lines, read_json, remove_folder, whole_file, write_text
from vglm.tuning.adalora import RankAllocation, is_adalora, load_allocation, save_allocation
from vglm.tuning.components import learning_rate_of
from vglm.tuning.memory import peak_memory, reset_peak_memory
from vglm.tuning.methods import NOT_SCORED_IN_SHARDS
from vglm.tuning.shards import divide_on_cpu, fill, name_units, outline_of, put, store_as_floats, whole
from vglm.tuning.sharing import SAMPLE_IDS, Filling, Shared, SharedCollator
from vglm.tuning.stopping import Request, leave, stopping_gently
from vglm.tuning.tracker_callbacks import TrackedScores, take_trackers

_WEIGHTS_NAME = "trainable.safetensors"
_STATE_NAME = "trainer_state.json"
_PROGRESS_KEY = "progress"
_ADVICE = "Delete that checkpoint to resume from the one before."
_UNREADABLE = (EOFError, RuntimeError, UnpicklingError, LookupError, TypeError, ValueError, AttributeError, OSError)
"""What torch.load, and users of its result, raise for a damaged file, or of a pickle that would run code."""
_SHOWN = 5

logger = logging.getLogger(__name__)


class Chosen(Protocol):
    """The checkpoint that training ends with; as text, why."""

    @property
    def step(self) -> int:
        """Its step."""


class CheckpointScorer(TrainerCallback):
    """What scores checkpoints as they are saved, see `vglm.evaluation.checkpoint_selection`.

    Attributes:
        budget_points: Hundredths that may be forgotten: choose by them; None keeps the last state.
        seconds: How long scoring took in this process.
        path: Where scores are written, a `forgetting.jsonl`.
    """

    budget_points: float | None
    seconds: float
    path: Path

    @property
    def choice(self) -> Chosen | None:
        """The checkpoint to keep; None keeps the last state."""
        return None

    def as_dict(self) -> dict[str, Any]:
        """For run.json: what was scored, and what was chosen and why."""
        return {}

    def examples(self, model: nn.Module) -> str | None:
        """Some test samples with the answers before training and now, for the terminal; None where none are shown."""
        return None


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
        skipped_steps: How many steps may be left out because a loss or a gradient is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: Sequence[Sample],
        data_collator: Collator,
        learning_rates: Mapping[str, float | str] = MappingProxyType({}),
        scores: CheckpointScorer | None = None,
        skipped_steps: int = 0,
    ) -> None:
        self.learning_rates = learning_rates
        self.scores = scores
        self.skipped_steps = skipped_steps
        self._skipped: list[str] = []
        self._loss_before: Tensor | None = None
        self._progress = _Progress()
        self._started = 0.0
        self._request = Request()
        self._is_stopping = False
        self._losses: list[Tensor] = []
        self._ids: list[list[str]] = []
        self._last_ids: list[str] = []
        self._outline: Any = None
        args._n_gpu = min(args.n_gpu, 1)  # else one process would divide a batch's layout as if it were rows
        args.logging_nan_inf_filter = False  # which would log the mean of the finite losses in their place
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
        trackers = take_trackers(self)
        self.add_callback(_Loop(self))
        self.add_callback(_LogFile(Path(str(args.output_dir)) / "log.jsonl"))
        if is_adalora(model):
            self.add_callback(RankAllocation())
        if scores is not None:
            self._check_scores(scores)
            self.add_callback(scores)
            self.add_callback(TrackedScores(scores.path, trackers))
        for tracker in trackers:  # which close when training ends, after what is scored then
            self.add_callback(tracker)

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **options: Any) -> Any:
        """Train as `Trainer.train`, to the checkpoint that `scores` chooses if it does.

        A request to terminate (SIGTERM) ends training after the step it is in, with a checkpoint. A checkpoint of the
        last step is loaded and nothing more.

        Args:
            resume_from_checkpoint: As found by `newest_checkpoint`; None begins again.
            arguments: See `Trainer.train`.
            options: See `Trainer.train`.

        Returns:
            The outcome. Its metrics say besides how much memory training took at its peak, and what part of the time
            went into scoring checkpoints.

        Raises:
            CheckpointError: The checkpoint is damaged, or lacks a file.
            WorkbenchError: A loss, a gradient or a tensor is not finite.
            SystemExit: Training was asked to terminate.
        """
        reset_peak_memory()
        with stopping_gently() as self._request:
            checkpoint = None
            if resume_from_checkpoint is not None:
                checkpoint = str(resume_from_checkpoint)
                self._check_checkpoint(Path(checkpoint))
            outcome = super().train(checkpoint, *arguments, **options)
        if self._is_stopping or self._request.was_made:
            leave()
        outcome.metrics["peak_memory_bytes"] = peak_memory()
        if self.scores is not None:
            outcome.metrics["scoring_seconds"] = round(self.scores.seconds, 4)
            if (choice := self.scores.choice) is not None:
                print(choice)
                if choice.step != self.state.global_step:
                    self._load_from_checkpoint(str(Path(str(self.args.output_dir)) / f"checkpoint-{choice.step}"))
        self._refuse_odd_numbers({name: whole(value.detach()) for name, value in self._trainable().items()})
        return outcome

    def facts(self, outcome: TrainOutput) -> dict[str, Any]:
        """What came of training, for run.json.

        Args:
            outcome: As returned by `train`.
        """
        forgetting = None if self.scores is None else self.scores.as_dict()
        return {"training": outcome.metrics, "skipped_steps": self._skipped, "forgetting": forgetting}

    def _check_scores(self, scores: CheckpointScorer) -> None:
        """Refuse what cannot be scored, or chosen from."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(NOT_SCORED_IN_SHARDS)
        if scores.budget_points is not None and self.args.save_strategy == SaveStrategy.NO:
            raise ConfigError(
                "checkpoint_selection.forgetting_budget chooses among saved checkpoints, and trainer.save_strategy=no"
                " saves none."
            )

    def trained_model(self) -> Any:
        """The model as it will be used: without the autocast that mixed precision wraps around it for training.

        Of a model in shards all processes must ask; the main one gets it whole, in its host's memory.
        """
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return model if self._outline is None else fill(self._outline, model, is_main=self.is_world_process_zero())

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; FSDP divides the model on a CPU as well, so that it can be tried there."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp_plugin_args is not None and not self.is_fsdp_enabled and self.args.device.type == "cpu":
            divide_on_cpu(self.accelerator.state, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        """Wrap the model; where it will be in shards, keep an outline of it."""
        if self.is_fsdp_enabled and self._outline is None:
            model: Any = self.model
            plugin = self.accelerator.state.fsdp_plugin
            store_as_floats(model, getattr(plugin.mixed_precision_policy, "param_dtype", None))
            self._outline = outline_of(model)
            name_units(plugin, model)
        return super()._prepare_for_training(*arguments, **options)

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

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the trainable tensors of a checkpoint; Trainer adds its own states, `trainer_state.json` last."""
        folder = Path(str(output_dir or self.args.output_dir))
        tensors = {name: whole(value.detach()).cpu().contiguous() for name, value in self._trainable().items()}
        self._refuse_odd_numbers(tensors)
        if not self.args.should_save:  # it gave its shards
            return
        progress = asdict(self._progress.after(self))
        with whole_file(folder / _WEIGHTS_NAME) as partial:
            save_file(tensors, partial, metadata={_PROGRESS_KEY: json.dumps(progress)})
        if is_adalora(self.model):
            save_allocation(self.accelerator.unwrap_model(self.model), folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what trains, of a model in shards too, whose frozen weights `Trainer` would gather."""
        if self.is_fsdp_enabled:
            self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, and remove those of which there are too many by now."""
        with self._removing_none() as limit:
            super()._save_checkpoint(model, trial)
        self._remove_checkpoints(limit)

    @contextmanager
    def _removing_none(self) -> Iterator[int | None]:
        """Keep Trainer from removing checkpoints file by file: killed in between it would leave half of one."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield limit
        finally:
            self.args.save_total_limit = limit

    def _remove_checkpoints(self, limit: int | None, *, is_last: bool = False) -> None:
        """Remove the oldest checkpoints, but not the best and the newest.

        Args:
            limit: How many may stay; all if None.
            is_last: Whether training is over, so that the newest need not stay beside the best where one may.
        """
        if limit is None or limit < 1 or not self.args.should_save:
            return
        checkpoints = sort_checkpoints(str(self.args.output_dir), use_mtime=True)
        best = self.state.best_model_checkpoint
        spared = {checkpoint for checkpoint in checkpoints if best is not None and Path(checkpoint) == Path(best)}
        if not is_last or not spared:
            spared.update(checkpoints[-1:])
        spare = [checkpoint for checkpoint in checkpoints if checkpoint not in spared]
        for checkpoint in spare[: max(0, len(checkpoints) - max(limit, len(spared)))]:
            remove_folder(Path(checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the random states of this process, in the main one's folder and before that one completes it."""
        self.accelerator.wait_for_everyone()
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _check_checkpoint(self, checkpoint: Path) -> None:
        """Refuse a checkpoint from which training cannot continue exactly.

        Raises:
            CheckpointError: Its state is damaged, or a file is missing.
        """
        state = read_json(checkpoint / _STATE_NAME, error=CheckpointError, advice=_ADVICE)
        wrong = [name for name, example in asdict(TrainerState()).items() if not _is_like(state.get(name), example)]
        wrong += [name for name in state if name not in TrainerState.__dataclass_fields__]
        wrong += [] if isinstance(state.get("train_batch_size"), int | None) else ["train_batch_size"]
        rows = state.get("log_history") or []
        if not wrong and not all(isinstance(row, dict) and _is_like(row.get("step"), 0) for row in rows):
            wrong = ["log_history"]
        if not wrong and not 0 < state.get("global_step", 0) <= max(state.get("max_steps", 0), self.args.max_steps):
            wrong = ["global_step"]
        if not wrong and checkpoint.name != f"checkpoint-{state['global_step']}":
            wrong = ["global_step"]
        if wrong:
            raise CheckpointError(f"{checkpoint / _STATE_NAME} is damaged: {sorted(wrong)[0]} is wrong. {_ADVICE}")
        if self.is_deepspeed_enabled:  # which has files of its own
            return
        is_several = self.args.world_size > 1
        random_state = f"rng_state_{self.args.process_index}.pth" if is_several else "rng_state.pth"
        names = [_WEIGHTS_NAME, *self._optimizer_files(), "scheduler.pt", random_state]
        names += ["scaler.pt"] if self._scaler is not None else []
        if missing := [name for name in names if not (checkpoint / name).is_file()]:
            others = len(list(checkpoint.glob("rng_state_*.pth"))) or 1
            advice = _ADVICE
            if missing == [random_state] and others != self.args.world_size:
                advice = f"It was saved by {others} processes and is read by {self.args.world_size}: take as many."
            raise CheckpointError(
                f"{checkpoint} lacks {', '.join(missing)}, without which training would not go on as it was. {advice}"
            )

    def _optimizer_files(self) -> list[str]:
        if not self.is_fsdp_enabled:
            return ["optimizer.pt"]
        is_whole = "FULL" in str(self.accelerator.state.fsdp_plugin.state_dict_type)
        return ["optimizer.bin"] if is_whole else []  # else a folder, one file for each process

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the states of optimizer and schedule; of a model in shards no second copy of the model beside them."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            states: Any = self.lr_scheduler
            torch.save(states.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Put a checkpoint's tensors back.

        Raises:
            CheckpointError: The file is unreadable, or holds other tensors than those that train now.
        """
        path = Path(resume_from_checkpoint) / _WEIGHTS_NAME
        try:
            stored = load_file(path)
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            self._progress = _Progress(**json.loads(metadata.get(_PROGRESS_KEY, "{}")))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {brief(error)}. {_ADVICE}") from error
        own = self._trainable(model)
        odd = set(own) ^ set(stored) or {name for name in own if own[name].shape != stored[name].shape}
        if odd:
            raise CheckpointError(
                f"{path} holds other tensors than those that train now, {sorted(odd)[0]} for one."
                " Resume with the method the run was started with."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                put(parameter, stored[name])
        if is_adalora(model or self.model):
            with _explained(path.parent, "AdaLoRA's ranks"):
                load_allocation(self.accelerator.unwrap_model(model or self.model), path.parent)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put a checkpoint's optimizer and schedule back; CheckpointError if a file is unreadable."""
        with _explained(checkpoint, "the states of optimizer and schedule"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Put a checkpoint's scale of float16 gradients back; CheckpointError if the file is unreadable."""
        if self._scaler is not None:
            with _explained(checkpoint, "the state of the gradients' scaler"):
                super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Put a checkpoint's random states back; CheckpointError if the file is unreadable."""
        with _explained(checkpoint, "the states of the random generators"):
            super()._load_rng_state(checkpoint)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """An epoch, unless training has come to its end already."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*arguments, **options)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> TrainOutput:
        """Report on the whole training, what came before it was resumed included."""
        start_time -= self._progress.seconds
        with self._removing_none() as limit:
            outcome: TrainOutput = super()._finalize_training(trial, num_train_samples, start_time)
        self._remove_checkpoints(limit, is_last=True)
        return outcome

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Train on one batch, and keep its loss and sample ids until the step is made."""
        ids = inputs.pop(SAMPLE_IDS, [])
        if not self._losses:
            trainer: Any = self
            self._loss_before = trainer._tr_loss.clone()
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(loss)
        self._ids.append(ids)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradients' norm; before the step is made with them, all that came of it is looked at, once."""
        norm = super()._get_grad_norm(model, grad_norm)
        norm = whole(norm) if isinstance(norm, Tensor) else norm
        seen = [*self._losses, torch.as_tensor(norm)] if self._scaler is None else self._losses
        values = torch.stack([tensor.detach().float().to(self.args.device) for tensor in seen])
        request = torch.tensor([float(self._request.was_made)], device=self.args.device)
        gathered = self.accelerator.gather(torch.cat((values, request))[None]).tolist()
        ids, self._losses, self._ids = self._ids, [], []
        self._is_stopping = any(row.pop() for row in gathered)
        if not all(math.isfinite(value) for row in gathered for value in row):
            losses = gathered[self.args.process_index][: len(ids)]
            odd = [name for names, loss in zip(ids, losses, strict=True) if not math.isfinite(loss) for name in names]
            learned = [name for names in ids for name in names]
            if self.args.world_size > 1:
                odd, learned = gather_object(odd), gather_object(learned)
            error = self._not_finite("the loss", odd) if odd else self._not_finite("a gradient", learned)
            if len(self._skipped) >= self.skipped_steps:
                raise error
            self._leave_out(str(error))
            return 0.0
        self._last_ids = [name for names in ids for name in names]
        return norm

    def _leave_out(self, reason: str) -> None:
        """Learn nothing from this step: without gradients the optimizer moves nothing, and its averages stay."""
        self._skipped.append(reason.partition(". ")[0])
        logger.warning("%s. Left out, %d of at most %d.", self._skipped[-1], len(self._skipped), self.skipped_steps)
        trainer: Any = self
        trainer._tr_loss = torch.zeros_like(trainer._tr_loss) if self._loss_before is None else self._loss_before
        trainer._globalstep_last_logged += 1  # the mean that is logged next is one of the other steps
        if self._scaler is None:  # which leaves the step out itself, and counts on the gradients being there
            for parameter in self._trainable().values():
                parameter.grad = None

    def _refuse_odd_numbers(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse to save values that are not finite."""
        if odd := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
            raise self._not_finite(f"{odd[0]}, which trains,", self._last_ids)

    def _not_finite(self, what: str, ids: Sequence[str]) -> WorkbenchError:
        step = self.state.global_step + (what in ("the loss", "a gradient"))
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        learned = f", at the samples {', '.join(ids[:_SHOWN])}{more}" if ids else ""
        return WorkbenchError(
            f"{what} is not finite in step {step}{learned}. Nothing of it was saved; earlier checkpoints in"
            f" {self.args.output_dir} are as they were. Look at these samples, or train anew with a lower"
            " trainer.learning_rate, a longer trainer.warmup_steps, or trainer.bf16=true in place of float16."
        )

    @property
    def _scaler(self) -> Any:
        """What keeps float16 gradients in range, and leaves steps out that it could not: it has its own way there."""
        return getattr(self.accelerator, "scaler", None)

    def get_train_dataloader(self) -> Any:
        """Batches of the training set; several processes share each, the last one of an epoch as well."""
        own: Any = self.train_dataset
        self.train_dataset = shared = Shared(own)
        try:
            loader: Any = super().get_train_dataloader()
        finally:
            self.train_dataset = own
        unwrapped: Any = self.accelerator.unwrap_model(self.model)
        collate = SharedCollator(loader.collate_fn, shared, unwrapped.config)
        loader.collate_fn = loader.base_dataloader.collate_fn = collate  # accelerate reads the one or the other
        if self.args.world_size > 1:
            shard: Any = loader.batch_sampler
            shard.batch_sampler = Filling(shard.batch_sampler, self.args.world_size)
        return loader

    def _trainable(self, model: nn.Module | None = None) -> dict[str, nn.Parameter]:
        unwrapped = self.accelerator.unwrap_model(model or self.model)
        return {name: parameter for name, parameter in unwrapped.named_parameters() if parameter.requires_grad}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """With `train_sampling_strategy=group_by_length`, batches of similar length from the lengths of the texts."""
        samples: Any = self.train_dataset if train_dataset is None else train_dataset
        samples = samples.shared if isinstance(samples, Shared) else samples
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        if not hasattr(samples, "lengths"):
            raise ConfigError(
                f"trainer.train_sampling_strategy=group_by_length needs a training set that knows its lengths, as"
                f" TrainingSequences does; {type(samples).__name__} does not."
            )
        if self.args.world_size > 1:
            raise ConfigError("trainer.train_sampling_strategy=group_by_length works in one process only.")
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch_size, lengths=samples.lengths.tolist())


@contextmanager
def _explained(checkpoint: str | Path | None, what: str) -> Iterator[None]:
    """Replace a library's exception by one that names the unreadable part of a checkpoint."""
    try:
        yield
    except _UNREADABLE as error:
        reason = brief(error).partition(". ")[0]
        raise CheckpointError(f"{checkpoint}: {what} cannot be read ({reason}). {_ADVICE}") from error


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value of a trainer's state is of the kind of its default; None stands for all but counts."""
    if isinstance(example, bool) or not isinstance(example, int | float | list | dict):
        return value is None or isinstance(value, str | bool | int | float | dict)
    if isinstance(example, list | dict):
        return value is None or isinstance(value, type(example))
    return value is not None and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class _Progress:
    """How far a training had come when a checkpoint was saved, beside what Trainer itself keeps of it.

    Attributes:
        seconds: How long it had taken.
        loss: Sum of the logged losses, each as often as it counts.
        unlogged_loss: Sum of those since.
        last_logged: The step of the last log line; None of a checkpoint that does not say.
        skipped: Why steps were left out, one by one.
    """

    seconds: float = 0.0
    loss: float = 0.0
    unlogged_loss: float = 0.0
    last_logged: int | None = None
    skipped: Sequence[str] = ()

    def after(self, trainer: Any) -> "_Progress":
        """The progress by now."""
        loss, unlogged = trainer._total_loss_scalar, trainer._tr_loss.item()
        seconds = self.seconds + time.time() - trainer._started
        return _Progress(seconds, loss, unlogged, trainer._globalstep_last_logged, trainer._skipped)

    def take_up(self, trainer: Any) -> None:
        """Continue counting from here."""
        trainer._started = time.time()
        trainer._skipped = list(self.skipped)
        if self.last_logged is not None:
            trainer._initial_global_step = 0  # what is reported is the whole training
            trainer._total_loss_scalar += self.loss
            trainer._tr_loss += self.unlogged_loss
            trainer._globalstep_last_logged = self.last_logged


class _Loop(TrainerCallback):
    """Takes up the counts of a checkpoint, and ends training after a step with a checkpoint on request."""

    def __init__(self, trainer: WorkbenchTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer._progress.take_up(self.trainer)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer._is_stopping:
            control.should_save = control.should_training_stop = True


def _has_virtual_tokens(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


class _LogFile(TrainerCallback):
    """Writes each logged step as a line of JSON; a resumed run drops the lines behind its checkpoint first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            is_resumed = state.global_step > 0 and self.path.exists()
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if is_resumed else []
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of(line) <= state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            entry = dict(state.log_history[-1])
            append_json_lines(self.path, [{"step": entry.pop("step"), **entry}])


def _step_of(line: str) -> float:
    """The step of a log line; infinity for what a resumed run writes again: half a line, or the summary at the end."""
    try:
        entry = json.loads(line)
        return float("inf") if "train_runtime" in entry else float(entry["step"])
    except (ValueError, LookupError, TypeError):
        return float("inf")


class _ProgressBar(ProgressCallback):
    """The usual bar, with the loss beside it instead of a printed dictionary for every logged step."""

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        logged = state.log_history[-1]
        if self.training_bar is not None and "loss" in logged:
            self.training_bar.set_postfix(loss=f"{logged['loss']:.4f}")
