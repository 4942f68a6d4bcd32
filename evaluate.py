"""Evaluate a run or a model: both arms of a comparison answer the same questions, and a report shows what differs.

python evaluate.py run=latest                                        before and after the newest run
python evaluate.py run=<run folder> dataset=... max_new_tokens=32    on other data, with other settings
python evaluate.py model=visualglm_tiny dataset=<data>               a model alone: true against shuffled images
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from vglm.config import build, check_config, entry_point
from vglm.errors import ConfigError


def run(cfg: DictConfig) -> Path:
    """Evaluate as the config says.

    Args:
        cfg: Composed from conf/evaluate.yaml and the command line.

    Returns:
        The evaluation folder: both arms' predictions.jsonl, metrics.json, report/index.html and report/report.md.
    """
    from vglm.evaluation import predictions as files
    from vglm.evaluation.generation import generate_predictions
    from vglm.evaluation.report import print_summary, render
    from vglm.evaluation.subject import describe, find_run, read_run_config, select_samples, single_model, tuned_run

    folder = None if cfg.run is None else find_run(cfg.run, Path("outputs"))
    trained = {} if folder is None else read_run_config(folder)
    take_from_run(cfg, trained)
    check_config(cfg, "evaluate")  # every mistake at once, before any weights load

    OmegaConf.resolve(cfg)
    splits = build(cfg.dataset)
    samples = select_samples(splits, cfg.splits)
    if folder is None:
        subject = single_model(OmegaConf.to_container(cfg), samples, partial(build, cfg.model), seed=cfg.seed)
    else:
        adapter = {"adapter": str(folder / "adapter")} if (folder / "adapter").is_dir() else {}
        load = partial(build, OmegaConf.merge(adapter, cfg.model))
        subject = tuned_run(folder, trained, samples, load, splits.files, cfg.dataset == trained["dataset"])

    output = Path(cfg.output_dir or (folder / "evaluation" if folder else f"outputs/evaluation/{subject.title}"))
    decoding = {"batch_size": cfg.batch_size, "max_new_tokens": cfg.max_new_tokens}
    with files.replaced_folder(output, marker=files.EVALUATION_FILE) as new:
        for arm in (subject.baseline, subject.candidate):
            answers = []
            with arm.open() as (model, processor):
                generate = partial(generate_predictions, model, processor, feature_cache=cfg.feature_cache, **decoding)
                for split, rows in arm.samples.items():
                    answers += generate(rows, split=split, title=f"{arm.label}, {split}", images=new / "images")
            files.write_predictions(answers, new / arm.label / files.PREDICTIONS_FILE)
        files.write_evaluation(describe(subject, answers, decoding, OmegaConf.to_yaml(cfg, resolve=True)), new)
        render(new)
    print_summary(output)
    return output


def take_from_run(cfg: DictConfig, trained: dict[str, object]) -> None:
    """Evaluate the run's model on the run's data, except for what the command line says of them."""
    with open_dict(cfg):
        for name in ("model", "dataset"):
            given = cfg.get(name) or {}
            if "_target_" not in given and name in trained:
                cfg[name] = OmegaConf.merge(trained[name], given)
            if "_target_" not in (cfg.get(name) or {}):
                raise ConfigError(f"there is no {name}: pass run=<run folder>, or model=<name> and dataset=<name>.")


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
