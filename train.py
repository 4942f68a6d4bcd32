"""Fine-tune a VisualGLM as a config says: it names the model, the method, the data and the trainer.

python train.py                                              LoRA on the few-shot background set, with the tiny model
python train.py recipes=background/lora method.r=16 seed=2   any field can be overridden
python train.py resume=outputs/background/lora/<time>        continue an interrupted run
"""

import shlex
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vglm.config import anchor_paths, build, check_config, entry_point, load_run_config


def run(cfg: DictConfig) -> Path:
    """Train as the config says.

    Args:
        cfg: Composed from conf/train.yaml, a recipe and the command line.

    Returns:
        The run folder, with the adapter (or the model, after full tuning) in it.
    """
    if is_resumed := cfg.resume is not None:
        cfg = load_run_config(cfg.resume)
    check_config(cfg)  # every mistake at once, before any weights load
    anchor_paths(cfg)

    from transformers import set_seed

    from vglm.data.collator import Collator
    from vglm.data.sequences import TrainingSequences
    from vglm.files import write_json
    from vglm.model.identity import hash_weights
    from vglm.model.loading import describe_place
    from vglm.tuning.contract import save_and_check
    from vglm.tuning.features import cache_features
    from vglm.tuning.methods import attach, check_method, lora_scale, trainable_share
    from vglm.tuning.run_folder import describe_run, newest_checkpoint, open_run
    from vglm.tuning.trainer import WorkbenchTrainer

    method, args, scoring = build(cfg.method), build(cfg.trainer), build(cfg.training)
    check_method(method, args, cfg.learning_rates, cfg.model.get("quantization"), cfg.model.get("dtype"))
    splits = scoring.divide(build(cfg.dataset))
    splits.refuse_leakage(allow=cfg.allow_leakage)
    asked = scoring.select(splits)  # of every checkpoint
    files = {"config.yaml": OmegaConf.to_yaml(cfg, resolve=True), "splits.json": splits.record()}
    with open_run(Path(cfg.output_dir), files, resume=is_resumed) as folder, build(cfg.tracker).writing_to(folder):
        set_seed(cfg.seed)
        model, processor = build(cfg.model)
        facts = describe_run(seed=cfg.seed, recipe=cfg.recipe, base_weights=hash_weights(model), splits=splits)
        sequences = TrainingSequences(splits.train, processor, max_length=cfg.max_length, answers=cfg.answers)
        model = attach(model, method)
        print(f"{folder}: {describe_place(model)}, {sequences.statistics}, {trainable_share(model)}")
        features = cache_features(model, processor, splits.train, args.device, asked) if cfg.feature_cache else None
        collate = Collator(processor, features=features, max_length=cfg.max_length, packing=cfg.packing)
        scores = scoring.watch(asked, collate, args)
        trainer = WorkbenchTrainer(model, args, sequences, collate, cfg.learning_rates, scores)
        outcome = trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
        if not trainer.is_world_process_zero():  # it has done its part
            return folder
        facts |= trainer.facts(outcome) | {"scale": lora_scale(model), "sequences": vars(sequences.statistics)}
        write_json(folder / "run.json", facts)
        report = save_and_check(trainer.trained_model(), processor, folder, collate(sequences[:1]))
        write_json(folder / "run.json", facts | report.as_dict())
        result = report.publish()
    print(f"{report}\nsaved: {result}\nnext: python evaluate.py {shlex.quote(f'run={folder}')}")
    return folder


@entry_point("train")
def main(cfg: DictConfig) -> None:
    """Train from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
