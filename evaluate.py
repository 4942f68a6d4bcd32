"""Evaluate a run or a model: both arms of a comparison answer the same questions, and a report shows what differs.

python evaluate.py run=latest [dataset=... max_new_tokens=32]     before and after the newest run, on its data or others
python evaluate.py task=mme dataset.path=<folder> run=latest      on a benchmark: data, prompt and metrics in one file
python evaluate.py model=visualglm_tiny dataset=<data>            a model alone: true against shuffled images
torchrun --nproc_per_node 2 evaluate.py run=latest                shared by two processes
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vglm.config import build, check_config, entry_point, take_from_run
from vglm.evaluation.score.settings import spell_out
from vglm.runs import Run

COMPONENTS = ("model", "dataset", "metrics", "task")


def run(cfg: DictConfig) -> Path:
    """Evaluate as the config says; the same command after a kill goes on where it was.

    Args:
        cfg: Composed from conf/evaluate.yaml and the command line.

    Returns:
        The evaluation folder, see `vglm.evaluation.predictions`.
    """
    tuned = None if cfg.run is None else Run.open(cfg.run, unverified=cfg.unverified is True)
    take_from_run(cfg, {} if tuned is None else tuned.config)
    cfg.metrics = spell_out(cfg.metrics)
    check_config(cfg, "evaluate")  # every mistake at once, before any weights load
    OmegaConf.resolve(cfg)

    from vglm.evaluation.pipeline import evaluate
    from vglm.evaluation.report import print_summary
    from vglm.evaluation.tracking import track_evaluation

    config = OmegaConf.to_container(cfg)
    settings = {name: value for name, value in config.items() if name not in (*COMPONENTS, "run", "draws")}
    result = evaluate(
        run=tuned,
        model=partial(build, cfg.model),
        metrics=build(cfg.metrics, _convert_="all"),
        dataset=build(cfg.dataset),
        task=build(cfg.task),
        repeats=cfg.draws,
        config=config,
        **settings,
    )
    if result.is_main:
        print_summary(result.folder, result.comparison, tracked=track_evaluation(result.folder, tuned))
    return result.folder


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
