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
from vglm.runs import EVALUATION_FILE, Run


def run(cfg: DictConfig) -> Path:
    """Evaluate as the config says; the same command after a kill goes on where it was.

    Args:
        cfg: Composed from conf/evaluate.yaml and the command line.

    Returns:
        The evaluation folder: every arm's predictions.jsonl, baselines.json, metrics.json, report/.
    """
    tuned = None if cfg.run is None else Run.open(cfg.run, unverified=cfg.unverified is True)
    folder, trained = (None, {}) if tuned is None else (tuned.folder, tuned.config)
    take_from_run(cfg, trained)
    check_config(cfg, "evaluate")  # every mistake at once, before any weights load

    from vglm.evaluation.predict.arms import answer, describe, open_subject, select_samples, work_key
    from vglm.evaluation.predict.baselines import collect_baselines, draw_examples, write_baselines
    from vglm.evaluation.predict.decoding import read_decoding
    from vglm.evaluation.predict.image_use import make_controls
    from vglm.evaluation.predictions import read_evaluation, write_evaluation
    from vglm.evaluation.processes import Processes
    from vglm.evaluation.ratings import keep_ratings
    from vglm.evaluation.report import print_summary, write_report
    from vglm.evaluation.score.comparison import compare_folder, write_metrics
    from vglm.evaluation.score.scoring import check_metrics, score_arms
    from vglm.evaluation.tracking import track_evaluation

    check_metrics(cfg.metrics)
    OmegaConf.resolve(cfg)
    config, decoding, processes = OmegaConf.to_container(cfg), read_decoding(cfg), Processes()

    # what is asked
    splits, task = build(cfg.dataset), build(cfg.task)
    samples = task.check(select_samples(splits, cfg.splits, cfg.choices))
    controls = make_controls(samples, cfg.image_use_samples if cfg.image_use else 0, cfg.baselines, cfg.seed)
    train = task.reword(splits.train) if cfg.baselines else ()
    few = draw_examples(train, cfg.shots_in_context, cfg.seed)

    # who is asked
    load = partial(build, cfg.model)
    subject = task.ask(open_subject(config, tuned, samples, splits.files, controls, load))

    # ask, score and report; the folder appears when all of it is there
    output = Path(cfg.output_dir or task.output_dir(folder, subject))
    key = work_key(config, splits.data_hash, tuned)
    with processes.folder(output, marker=EVALUATION_FILE, key=key) as new:
        answers = answer(subject, new, decoding, train, cfg.feature_cache, processes, few)
        if not processes.is_main:  # it has done its part
            return output
        write_baselines(collect_baselines(train, answers, cfg.metrics) if cfg.baselines else [], new)
        write_evaluation(describe(subject, answers, decoding, OmegaConf.to_yaml(cfg)), new, subject.log)
        score_arms(new, cfg.metrics)  # those of metrics.external
        keep_ratings(output, new)  # what people said of answers that are still the same counts on
        comparison = compare_folder(new, read_evaluation(new))
        write_metrics(comparison, new)
        write_report(new, comparison)
    print_summary(output, comparison, tracked=track_evaluation(output, folder, trained))
    return output


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
