"""Evaluate a run or a model: both arms of a comparison answer the same questions, and a report shows what differs.

python evaluate.py run=latest [dataset=... max_new_tokens=32]     before and after the newest run, on its data or others
python evaluate.py task=mme dataset.path=<folder> run=latest      on a benchmark: data, prompt and metrics in one file
python evaluate.py model=visualglm_tiny dataset=<data>            a model alone: true against shuffled images
torchrun --nproc_per_node 2 evaluate.py run=latest                shared by two processes
"""

import sys
from pathlib import Path

try:
    from omegaconf import DictConfig, OmegaConf

    import vglm
    from vglm.config import arguments_of, check_config, entry_point, take_from_run
    from vglm.evaluation.score.settings import spell_out
    from vglm.runs import Run
except ModuleNotFoundError as error:  # of another Python than that of the environment
    print(f"error: {error.name} is missing. Activate the environment: source .venv/bin/activate", file=sys.stderr)
    sys.exit(2)


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
    check_config(cfg, "evaluate")  # every mistake at once, before any library loads
    OmegaConf.resolve(cfg)
    config = OmegaConf.to_container(cfg)
    result = vglm.evaluate(**{**arguments_of(cfg, "evaluate"), "run": tuned}, config=config)

    from vglm.evaluation.report import print_summary
    from vglm.evaluation.tracking import track_evaluation

    if result.is_main:
        tracked = track_evaluation(result.folder, tuned, cfg.tracker.report_to)
        print_summary(result.folder, result.comparison, tracked=tracked)
    return result.folder


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
