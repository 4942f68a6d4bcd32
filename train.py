"""Fine-tune a VisualGLM as a config says: it names the model, the method, the data and the trainer.

python train.py                                              LoRA on the few-shot background set, with the tiny model
python train.py recipes=background/lora method.r=16 seed=2   any field can be overridden
python train.py resume=outputs/background/lora/<time>        continue an interrupted run

The story (load, attach, train, save, prove) is told in `vglm.tuning.train`; a notebook calls it as `vglm.train`.
"""

import sys
from pathlib import Path

try:
    from omegaconf import DictConfig

    import vglm
    from vglm.config import arguments_of, check_config, entry_point, load_run_config
    from vglm.files import read_json
    from vglm.processes import is_main
    from vglm.runs import RECORD_FILE, SCORES_FILE, read_scores
except ModuleNotFoundError as error:  # of another Python than that of the environment
    print(f"error: {error.name} is missing. Activate the environment: source .venv/bin/activate", file=sys.stderr)
    sys.exit(2)


def run(cfg: DictConfig) -> Path:
    """Train as the config says.

    Args:
        cfg: Composed from conf/train.yaml, a recipe and the command line.

    Returns:
        The run folder, with the adapter (or the model, after full tuning) in it.
    """
    if cfg.resume is not None:
        cfg = load_run_config(cfg.resume, cfg)
    if (cfg.get("metrics") or {}).get("external"):
        from vglm.evaluation.score.settings import spell_out  # loads libraries that a mistake in the config needs not

        cfg.metrics = spell_out(cfg.metrics)
    check_config(cfg)  # every mistake at once, before any library loads
    return vglm.train(**arguments_of(cfg, "train")).folder


@entry_point("train")
def main(cfg: DictConfig) -> float | None:
    """Train from the command line.

    Returns:
        For a sweeper that optimises: the score on the domain of the checkpoint that was kept, never of test samples.
    """
    folder = run(cfg)
    if not is_main():  # the main process may not have written its record yet
        return None
    scores = {score.step: score.domain for score in read_scores(folder / SCORES_FILE)}
    chosen = (read_json(folder / RECORD_FILE).get("forgetting") or {}).get("chosen_step") if scores else None
    return scores[max(scores) if chosen is None else chosen] if scores else None


if __name__ == "__main__":
    main()
