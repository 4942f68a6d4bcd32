"""Evaluate a run or a model: both arms of a comparison answer the same questions, and a report shows what differs.

python evaluate.py run=latest                                        before and after the newest run
python evaluate.py run=<run folder> dataset=... max_new_tokens=32    on other data, with other settings
python evaluate.py model=visualglm_tiny dataset=<data>               a model alone: true against shuffled images
torchrun --nproc_per_node 2 evaluate.py run=latest                   the same, shared by two processes
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vglm.config import build, check_config, entry_point, take_from_run


def run(cfg: DictConfig) -> Path:
    """Evaluate as the config says; the same command after a kill goes on where it was.

    Args:
        cfg: Composed from conf/evaluate.yaml and the command line.

    Returns:
        The evaluation folder: every arm's predictions.jsonl, baselines.json, metrics.json, report/.
    """
    from vglm.evaluation import predictions as files
    from vglm.evaluation import subject as subjects
    from vglm.evaluation.baselines import collect_baselines, write_baselines
    from vglm.evaluation.decoding import read_decoding
    from vglm.evaluation.image_use import make_controls
    from vglm.evaluation.metrics import select_metrics
    from vglm.evaluation.processes import Processes
    from vglm.evaluation.report import print_summary, render

    folder = None if cfg.run is None else subjects.find_run(cfg.run, Path("outputs"))
    trained = {} if folder is None else subjects.read_run_config(folder)
    take_from_run(cfg, trained)
    check_config(cfg, "evaluate")  # every mistake at once, before any weights load
    select_metrics(cfg.metrics.names, cfg.metrics.labels)
    OmegaConf.resolve(cfg)
    decoding, processes = read_decoding(cfg), Processes()
    splits = build(cfg.dataset)
    samples = subjects.select_samples(splits, cfg.splits)
    controls = make_controls(samples, cfg.image_use_samples if cfg.image_use else 0, cfg.baselines, cfg.seed)
    adapter = {"adapter": str(folder / "adapter")} if folder and (folder / "adapter").is_dir() else {}
    load = partial(build, OmegaConf.merge(adapter, cfg.model))
    if folder is None:
        subject = subjects.single_model(OmegaConf.to_container(cfg), samples, load, cfg.seed, controls)
    else:
        about = [splits.files, cfg.dataset == trained["dataset"], controls, cfg.model.get("dtype")]
        subject = subjects.tuned_run(folder, trained, samples, load, *about)

    output = Path(cfg.output_dir or (folder / "evaluation" if folder else f"outputs/evaluation/{subject.title}"))
    key = subjects.work_key(OmegaConf.to_container(cfg), splits.data_hash, folder)
    with processes.folder(output, marker=files.EVALUATION_FILE, key=key) as new:
        train = splits.train if cfg.baselines else ()
        answers = subjects.answer(subject, new, decoding, train, cfg.feature_cache, processes=processes)
        if not processes.is_main:  # it has done its part
            return output
        write_baselines(collect_baselines(splits.train, answers, cfg.metrics) if cfg.baselines else [], new)
        files.write_evaluation(subjects.describe(subject, answers, decoding, OmegaConf.to_yaml(cfg)), new)
        render(new)
    print_summary(output)
    return output


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate from the command line."""
    run(cfg)


if __name__ == "__main__":
    main()
