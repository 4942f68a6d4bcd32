"""The classical baseline of variable stars: features of the series tell types apart, and answers are in form."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vglm.data.astronomy.light_curve import LightCurve, measure
from vglm.data.astronomy.questions import ask
from vglm.data.astronomy.series import SERIES, keep_series, open_series
from vglm.data.division import ByGroup
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample
from vglm.evaluation.predict.answers import Answers
from vglm.evaluation.predict.star_forest import features, forest_answers
from vglm.evaluation.predictions import unanswered
from vglm.evaluation.score.baselines import collect_baselines
from vglm.evaluation.score.metrics import select_metrics
from vglm.worlds.star_dialogues import write_star_set


def curve(shape: str, period_days: float, seed: int) -> LightCurve:
    """A sine, or a narrow dip in a constant light."""
    time = np.sort(np.random.default_rng(seed).uniform(0, 20, 300))
    phase = time / period_days % 1
    light = 0.1 * np.sin(2 * np.pi * phase) if shape == "sine" else -0.3 * (phase < 0.08)
    return LightCurve.clean("star", time, 1 + light)


def star(shape: str, number: int) -> Sample:
    series = curve(shape, 1.0 + 0.01 * number, number)
    name = f"{shape} {number}"
    kind = {"sine": "rr_lyrae", "dip": "eclipsing"}[shape]
    turn = ask("type", kind, "en", name)
    return Sample(f"s#{name}", name, None, (turn,), "en", {"kind": "type", "type": kind, SERIES: lambda: series})


def test_features_are_numbers_that_do_not_depend_on_brightness() -> None:
    one = curve("sine", 1.3, 1)
    bright = LightCurve.clean("star", one.time, 500 * one.flux)
    vector = features(one, measure(one))
    assert vector.shape == (14,)
    assert np.isfinite(vector).all()
    np.testing.assert_allclose(features(bright, measure(bright)), vector, rtol=1e-6, atol=1e-6)


def test_a_forest_names_the_types_and_stands_among_the_baselines() -> None:
    pytest.importorskip("sklearn")
    train = [star(shape, number) for shape in ("sine", "dip") for number in range(8)]
    test = [star(shape, number) for shape in ("sine", "dip") for number in range(20, 23)]
    answers = forest_answers(train, test, seed=1)
    assert answers == [observed.answer for observed in test]
    records = [unanswered(observed, "test") for observed in test]
    assert not any(SERIES in record.meta for record in records)  # where a file lies is nobody's business
    baselines = collect_baselines(
        [], Answers("after", {"after": records}, forest=answers), select_metrics(["exact_match"])
    )
    (forest,) = (baseline for baseline in baselines if baseline.name == "features + random forest")
    assert forest.scores["exact_match"] == 1
    without = [replace(record, meta={"kind": "type"}) for record in test]
    assert forest_answers(train, without, seed=1) == []
    assert forest_answers(train, [*test, *without], seed=1) == []
    assert forest_answers([*train, *without], test, seed=1) == answers  # a mixture's other samples teach nothing here
    one_group = [replace(observed, group="sector 1") for observed in test]  # divided by another rule than by star
    assert forest_answers(train, one_group, seed=1) == answers
    for other in ("kplr1.fits", [1.0, 2.0]):  # a column of that name
        named = [replace(record, meta={**record.meta, SERIES: other}) for record in test]
        assert forest_answers(train, named, seed=1) == []
    gone = replace(test[0], meta={**test[0].meta, SERIES: keep_series(Path("gone.csv"), flux="auto", magnitudes=None)})
    assert forest_answers(train, [gone, *test], seed=1) == []  # the model's answers are kept all the same


def test_a_set_of_files_keeps_where_its_light_curves_are(tmp_path: Path) -> None:
    write_star_set(tmp_path / "stars", stars=4, seed=3)
    halves = ByGroup({"train": 0.5, "test": 0.5})
    samples = load_dataset(tmp_path / "stars", format="lightcurves", division=halves).train
    series = open_series(samples[0].meta[SERIES], samples[0].group)
    assert len(series.time) >= 30
    assert measure(series).period_days > 0
