import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_report import AFTER, BEFORE, EVALUATION, Page

from vglm.errors import DataError
from vglm.evaluation.predictions import write_evaluation, write_predictions
from vglm.evaluation.report import render
from vglm.evaluation.report.sections.curves import describe_curves, plots, read_curves
from vglm.evaluation.report.sections.curves.drawing import HEIGHT, WIDTH

SVG = "{http://www.w3.org/2000/svg}"
SCORES = [(0, 0.0, 0.8), (50, 0.6, 0.78), (100, 0.9, 0.4)]
"""(step, domain, retention): it learns, and forgets half of what it knew."""


def write(folder: Path, **values: Any) -> Path:
    content = {
        "learning": [{"step": 10 * row, "loss": 2 / row, "learning_rate": 0.001} for row in range(1, 11)],
        "forgetting": [
            {"step": step, "domain": domain, "retention": retention, "domain_n": 64, "retention_n": 160}
            for step, domain, retention in SCORES
        ],
        "metric": "exact_match",
        "domain_split": "validation",
        "budget_points": 5.0,
        "chosen_step": 50,
        "stopped_early": False,
    }
    (folder / "curves.json").write_text(json.dumps(content | values), encoding="utf-8")
    return folder


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**values: Any) -> Path:
        write_evaluation(EVALUATION, tmp_path)
        write_predictions(BEFORE, tmp_path / "before" / "predictions.jsonl")
        write_predictions(AFTER, tmp_path / "after" / "predictions.jsonl")
        return write(tmp_path, **values)

    return make


def circles(svg: str, css: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    elements = [element for element in root.iter() if element.tag.endswith("circle") and element.attrib["class"] == css]
    return [(float(element.attrib["cx"]), float(element.attrib["cy"])) for element in elements]


def test_the_path_goes_right_where_ability_is_lost_and_up_where_the_domain_gains(tmp_path: Path) -> None:
    curves = read_curves(write(tmp_path))
    assert curves is not None
    path, scores, loss = plots(curves)
    assert [path_of_plot.name for path_of_plot in (path, scores, loss)] == ["plot-path", "plot-scores", "plot-learning"]
    svg = str(path.inline())
    (x0, y0), (x1, y1) = circles(svg, "dot")  # within the budget
    ((x2, y2),) = circles(svg, "dot lost")  # beyond it
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert (x2 - x0) / (x1 - x0) == pytest.approx(40 / 2, rel=0.01)
    assert (y0 - y2) / (y0 - y1) == pytest.approx(0.9 / 0.6, rel=0.01)
    assert circles(svg, "chosen") == [(x1, y1)]
    budget = next(element for element in ElementTree.fromstring(svg).iter() if element.get("class") == "budget")
    assert (float(budget.attrib["x1"]) - x0) / (x2 - x0) == pytest.approx(5 / 40, rel=0.01)
    assert path.rows == [("0", "0.0", "0.0", ""), ("50", "+60.0", "+2.0", "●"), ("100", "+90.0", "+40.0", "")]


def test_every_plot_has_a_title_a_description_and_stays_within_its_frame(tmp_path: Path) -> None:
    curves = read_curves(write(tmp_path))
    assert curves is not None
    for plot in plots(curves):
        root = ElementTree.fromstring(str(plot.inline()))
        names = {element.get("id"): element.text for element in root if element.tag in ("title", "desc")}
        assert root.attrib["aria-labelledby"].split() == list(names)
        assert list(names.values()) == [plot.title.en, plot.about.en]
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= WIDTH
            assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
        assert len(plot.rows[0]) == len(plot.header)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"chosen_step": None}, "Over the forgetting budget: at step 100 the retention set went from 80.0% to"),
        ({"chosen_step": None, "budget_points": None}, "General ability was forgotten: at step 100 the retention set"),
        ({}, "At step 100 the retention set was down to 40.0%, 40.0 points lost: that checkpoint was not taken."),
        ({"learning": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}]}, "no finite number in 1 of 2"),
    ],
)
def test_a_retention_set_that_falls_and_a_loss_that_breaks_are_said_at_the_top(
    make_folder: Callable[..., Path], values: dict[str, Any], expected: str
) -> None:
    page = render(make_folder(**values))
    text = page.read_text(encoding="utf-8")
    summary = text.partition('<section class="summary"')[2].partition("</section>")[0]
    line = next(item for item in summary.split("<li") if expected in item)
    assert 'class="worse"' in line
    assert expected in (page.parent / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("retention", "is_worse"), [(0.75, False), (0.68, True), (0.4, True)])
def test_without_a_budget_only_what_chance_cannot_explain_is_called_forgetting(
    tmp_path: Path, retention: float, is_worse: bool
) -> None:
    last = {"step": 9, "domain": 1.0, "retention": retention, "domain_n": 64, "retention_n": 160}
    first = {**last, "step": 0, "domain": 0.0, "retention": 0.8}
    curves = read_curves(write(tmp_path, forgetting=[last, first], budget_points=None, chosen_step=None))
    assert curves is not None
    sentence, css = describe_curves(curves)[0]
    assert (css == "worse") == is_worse
    assert ("which chance may explain" in sentence.en) != is_worse


def test_the_page_shows_the_curves_and_the_files_lie_beside_it(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    page = Page(render(folder).read_text(encoding="utf-8"))
    drawn = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("class") == "plot"]
    assert len(drawn) == 3
    assert "Domain gain against general ability lost" in page.text
    assert (
        "chosen by these very scores on Validation, so they flatter it; the verdict rests on other samples (Test"
        in (" ".join(page.text.split()))
    )
    file = (folder / "report" / "curves.svg").read_text(encoding="utf-8")
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(file).iter(f"{SVG}text")]
    assert {"50, chosen", "budget: 5", "Loss in training"} <= set(texts)
    assert "curves.svg" in (folder / "report" / "report.md").read_text(encoding="utf-8")
    (folder / "curves.json").unlink()
    page = Page(render(folder).read_text(encoding="utf-8"))
    assert not [tag for tag, attributes in page.tags if tag == "section" and attributes.get("id") == "curves"]
    assert not (folder / "report" / "curves.svg").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"learning": [], "forgetting": [], "metric": None, "domain_split": None},
        {"forgetting": [{"step": 0, "domain": None, "retention": 0.5, "domain_n": 0, "retention_n": 9}]},
        {"learning": [{"step": 0, "loss": 0.0}], "forgetting": []},
        {
            "forgetting": [
                {"step": step, "domain": 0.0, "retention": 0.0, "domain_n": 1, "retention_n": 1} for step in (0, 1)
            ]
        },
    ],
)
def test_curves_with_little_in_them_render(make_folder: Callable[..., Path], values: dict[str, Any]) -> None:
    assert render(make_folder(**values)).is_file()


def test_damaged_curves_are_named(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"curves\.json is damaged: learning\.0\.step: Field required"):
        render(make_folder(learning=[{"loss": 1.0}]))
