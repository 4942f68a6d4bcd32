"""What `vglm report --format` makes of an evaluation: its numbers are those of metrics.json, in every form."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import record, run_record

from vglm.cli import main
from vglm.evaluation.messages import Message
from vglm.evaluation.paper import FORMATS
from vglm.evaluation.paper.figures import method_figures
from vglm.evaluation.paper.formats import latex, write_table
from vglm.evaluation.paper.tables import PaperTable, method_table, pair_table
from vglm.evaluation.predictions import Arm, Evaluation, Stamp, write_evaluation, write_predictions
from vglm.evaluation.report import render
from vglm.evaluation.score.side_by_side import MethodTest, Row
from vglm.evaluation.score.statistics import Interval, compare_paired

SAMPLES = 20
FACTS = {
    "base model": "visualglm_tiny",
    "base weights": "xxh3 0123456789abcdef",
    "method": "LoraConfig, r 8",
    "training data": Message("training_data", {"data": "R&D_100%", "n": 2000, "sha256": "dea9d2352e3e65c8"}),
    "training": Message("training", {"steps": 200, "batch": 10, "rate": 0.001, "seed": 7}),
}


def make_evaluation(folder: Path, **values: Any) -> Path:
    described: dict[str, Any] = {
        "title": "xray_1/50% & #1",
        "summary": "visualglm_tiny tuned",
        "purpose": "tuning",
        "baseline": Arm(label="before", meaning="as it was"),
        "candidate": Arm(label="after", meaning="tuned"),
        "facts": FACTS,
        "decoding": {"greedy": True, "max_new_tokens": 64},
        "command": "python evaluate.py run=x",
        "versions": {"torch": "2.13.0"},
        "config": "metrics: {names: [accuracy, exact_match, rouge_l_characters], labels: [沙滩, 森林]}\n",
        "created": "2026-01-01T00:00:00+00:00",
        "stamps": (Stamp(text="SYNTHETIC DATA", detail="Made by back_ground {1}."),),
    }
    write_evaluation(Evaluation(**described | values), folder)
    for label, right in {"before": 2, "after": 15}.items():
        answers = [record("沙滩。" if index < right else "森林。", "沙滩。", str(index)) for index in range(SAMPLES)]
        write_predictions(answers, folder / label / "predictions.jsonl")
    render(folder)
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "evaluation")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["report", *arguments]) == 0
    return capsys.readouterr().out


def scores_of(evaluation: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    return dict(scores["scores"])


def test_csv_has_the_numbers_of_the_metrics_file(evaluation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(printed(capsys, str(evaluation), "--format=csv")))}
    scores = scores_of(evaluation)
    assert rows.keys() == scores.keys()
    for name, score in scores.items():
        expected = [*score["values"].values(), score["difference"], *score["interval"], score["p_value"], score["n"]]
        columns = ("before", "after", "difference", "interval_low", "interval_high", "p_value", "n")
        assert [json.loads(rows[name][column] or "null") for column in columns] == expected
        assert rows[name]["signature"] == score["signature"]
        holm = rows[name]["p_value_holm"]
        assert (float(holm) if holm else None) == score["p_value_holm"]


@pytest.mark.parametrize("format", ["latex", "markdown"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_printed_tables_round_the_numbers_of_the_metrics_file(
    evaluation: Path, capsys: pytest.CaptureFixture[str], format: str, language: str
) -> None:
    text = printed(capsys, str(evaluation), "--format", format, "--language", language)
    plain = text.replace(r"\%", "%").replace(r"\ensuremath{-}", "−").replace("\\+", "+")
    score = scores_of(evaluation)["accuracy"]
    title = {"en": "Accuracy", "zh": "准确率"}[language]
    row = next(line for line in plain.splitlines() if re.match(rf"\|? ?{title} [|&]", line))
    low, high = (f"{100 * end:+.1f}" for end in score["interval"])
    for shown in ("10.0%", "75.0%", "+65.0", low, high, f" {SAMPLES} "):
        assert shown in row
    stamp = {"en": "SYNTHETIC DATA", "zh": "合成数据"}[language]
    assert stamp in plain


def test_latex_is_balanced_and_its_columns_are_even(evaluation: Path, tmp_path: Path) -> None:
    output = tmp_path / "paper"
    assert main(["report", str(evaluation), "--format", "latex", "--output", str(output)]) == 0
    table = (output / "scores.tex").read_text(encoding="utf-8")
    check_latex(table)
    check_latex((output / "methods.tex").read_text(encoding="utf-8"))
    assert r"xray\_1/\allowbreak{}50\% \& \#1" in table
    assert r"back\_ground \{1\}" in table
    assert table.startswith("% needs \\usepackage{booktabs}\n")
    methods = (output / "methods.tex").read_text(encoding="utf-8")
    assert "xeCJK" in methods.splitlines()[0]  # the signature of the accuracy names Chinese labels


def test_of_a_model_alone_the_table_says_what_its_two_columns_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {"baseline": Arm(label="shuffled", meaning="others"), "candidate": Arm(label="true", meaning="own")}
    folder = tmp_path / "evaluation"
    for label, answer in (("shuffled", "森林。"), ("true", "沙滩。")):
        answers = [record(answer, "沙滩。", str(index)) for index in range(SAMPLES)]
        write_predictions(answers, folder / label / "predictions.jsonl")
    make_evaluation(folder, purpose="image use", facts={"model": "visualglm_tiny"}, **arms)
    table = printed(capsys, str(folder), "--format", "markdown")
    assert "One model, nothing was tuned: shuffled shows it another sample's image" in table
    assert "One training run" not in table
    assert "图像对它的价值" in printed(capsys, str(folder), "--format", "markdown", "--language", "zh")
    assert main(["report", str(folder), "--format", "markdown", "--output", str(tmp_path / "paper")]) == 0
    methods = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    assert "One model answered the same samples twice" in methods
    assert "Both models" not in methods


def test_csv_has_a_row_of_what_could_not_be_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = "metrics: {names: [findings_micro_f1]}\n"  # no reference speaks of findings
    rows = list(
        csv.DictReader(io.StringIO(printed(capsys, str(make_evaluation(tmp_path, config=config)), "--format=csv")))
    )
    (row,) = (row for row in rows if row["metric"] == "findings_micro_f1")
    assert row["not_computed"]
    assert (row["before"], row["difference"], row["n"]) == ("", "", "")
    assert [row["not_computed"] for row in rows if row["metric"] == "exact_match"] == [""]


def check_latex(text: str) -> None:
    """Environments and braces close in order, no special character is bare, all rows of a table are as wide."""
    opened: list[str] = []
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", body):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    depth = 0
    for mark in re.findall(r"\\.|[{}]", body):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\\)[%#$~^]", body)
    assert not re.search(r"(?<!\\)_", body)
    for tabular in re.findall(r"\\begin\{tabular\}\{@\{\}(l?r+)@\{\}\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        for line in tabular[1].split(r"\\")[:-1]:
            spans = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(tabular[0])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_tables_compile_and_fit_a_page(evaluation: Path, tmp_path: Path) -> None:
    tables = [table(name) for name in ("lora_replay", "p_tuning_v2_projection") for table in (_methods, _pairs)]
    texts = [write_table(table, "latex", "en") for table in tables]
    assert main(["report", str(evaluation), "--format", "latex", "--output", str(tmp_path / "paper")]) == 0
    texts.append((tmp_path / "paper" / "scores.tex").read_text(encoding="utf-8"))
    packages = r"\documentclass[10pt,twocolumn]{article}\usepackage[margin=2cm]{geometry}\usepackage{booktabs}"
    body = "\n".join(texts)
    (tmp_path / "all.tex").write_text(rf"{packages}\begin{{document}}{body}\end{{document}}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 0


def test_no_text_is_a_command_of_latex() -> None:
    assert latex(r"a\b{c}") == r"a\textbackslash{}b\{c\}"
    assert latex("50% of R&D_1 #2 $3 ~ ^") == r"50\% of R\&D\_1 \#2 \$3 \textasciitilde{} \textasciicircum{}"
    assert latex("−1.0 – 2") == r"\ensuremath{-}1.0 -- 2"
    assert latex("沙滩") == "沙滩"


def test_methods_say_what_the_records_say_and_what_they_lack(evaluation: Path, tmp_path: Path) -> None:
    for language in ("en", "zh"):
        assert main(["report", str(evaluation), "--output", str(tmp_path / language), "--language", language]) == 0
    text = (tmp_path / "en" / "methods.md").read_text(encoding="utf-8")
    for statement in (
        *(
            "visualglm_tiny",
            "xxh3 0123456789abcdef",
            "2,000 samples, sha256 dea9d2352e3e65c8",
            "200 steps of 10 samples",
        ),
        *("Training seed: 7.", "max_new_tokens 64", "greedily", "torch 2.13.0"),
        *(score["signature"].replace("|", "\\|") for score in scores_of(evaluation).values()),
    ):
        assert statement in text
    for lacking in ("how the data was divided", "the optimiser", "the state of the code", "hashes of the answers"):
        assert lacking in text
    chinese = (tmp_path / "zh" / "methods.md").read_text(encoding="utf-8")
    assert "训练随机种子：7。" in chinese
    assert "记录中没有：" in chinese


def test_the_run_fills_what_its_evaluation_does_not_say(tmp_path: Path) -> None:
    parts = {name: {"_target_": "x"} for name in ("model", "dataset", "method")}
    trainer = {"_target_": "x", "lr_scheduler_type": "cosine", "optim": "adamw_torch"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**parts, "trainer": trainer}), encoding="utf-8")
    plan = {"divided": "by group", "fractions": {"test": 0.2}, "seed": 5, "group": "as the file says"}
    plan["validation"] = {"samples": 40, "of": 2040, "seed": 3}
    data = {"train": 2000, "validation": 40, "sha256": "ab", "plan": plan, "leakage": []}
    written = run_record(data=data, seed=9, versions={"peft": "0.21.2", "absent": None})
    (tmp_path / "run.json").write_text(json.dumps(written), encoding="utf-8")
    make_evaluation(tmp_path / "evaluation")
    assert main(["report", str(tmp_path / "evaluation"), "--output", str(tmp_path / "paper")]) == 0
    text = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    for statement in (
        "by group, seed 5",
        "Validation: 40 samples",
        "cosine",
        "adamw_torch",
        "Training seed: 9.",
        "peft 0.21.2",
    ):
        assert statement in text
    assert "absent" not in text
    assert "names no overlap" in text
    assert "40 of 2,040 training samples, by group, seed 3" in text
    chinese = tmp_path / "zh"
    assert main(["report", str(tmp_path / "evaluation"), "--language", "zh", "--output", str(chinese)]) == 0
    paragraph = next(line for line in (chinese / "methods.md").read_text("utf-8").splitlines() if "数据划分" in line)
    for words in ("按组，随机种子 5。", "按文件所载", "2,040 条样本中的 40 条"):
        assert words in paragraph


def test_the_checklist_ticks_only_what_the_records_answer(evaluation: Path, tmp_path: Path) -> None:
    assert main(["report", str(evaluation), "--format", "csv", "--output", str(tmp_path / "paper")]) == 0
    items = re.split(r"\n- ", (tmp_path / "paper" / "checklist.md").read_text(encoding="utf-8"))
    by_title = {match[2]: match[1] == "x" for item in items if (match := re.match(r"\[(.)\] \*\*(.*)\*\*", item))}
    assert by_title["Metrics of performance"]
    assert by_title["Performance with intervals on every part"]
    assert not by_title["How the data was divided"]  # there is no run.json here
    assert not by_title["Software with versions"]  # nor the state of the code
    assert not by_title["De-identification"]
    for item in items[1:]:
        assert item.startswith("[x]") != ("**Open:**" in item)


def test_figures_fit_a_column(evaluation: Path, tmp_path: Path) -> None:
    output = tmp_path / "paper"
    assert main(["report", str(evaluation), "--output", str(output), "--language", "zh"]) == 0
    figure = ElementTree.parse(output / "scores.svg").getroot()
    assert figure.get("width") == "85mm"
    units = float(str(figure.get("viewBox")).split()[2])
    assert float(str(figure.get("font-size"))) * 85 / 25.4 * 72 / units >= 6.9  # points
    texts = [element.text for element in figure.iter("{http://www.w3.org/2000/svg}text")]
    assert "准确率" in texts
    low, high = (f"{100 * end:+.1f}" for end in scores_of(evaluation)["accuracy"]["interval"])
    assert f"+65.0 ({low} 至 {high})" in texts


def test_what_an_author_has_edited_is_not_replaced(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", str(evaluation), "--output", str(tmp_path / "paper")]
    assert main(arguments) == 0
    (tmp_path / "paper" / "checklist.md").write_text("mine", encoding="utf-8")
    assert main(arguments) == 2
    assert "paper" in capsys.readouterr().err
    assert (tmp_path / "paper" / "checklist.md").read_text(encoding="utf-8") == "mine"


def test_a_table_is_of_one_evaluation(evaluation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(evaluation), str(evaluation), "--format", "csv"]) == 2
    assert "one evaluation" in capsys.readouterr().err


def _rows(name: str = "lo_ra") -> list[Row]:
    interval = Interval(0.775, 0.925)
    facts = {"before": 0.0, "after": 0.85, "interval": interval, "by_seed": (0.8, 0.9), "samples": 10, "size": 270_000}
    more = {"sample_se": 0.03, "seconds": 45.0, "peak_memory": None}
    one = Row(name=f"xray/{name}", seeds=(1, 2), seed_sd=0.017, forgotten=15.4, **facts, **more)  # type: ignore[arg-type]
    two = Row(name="xray/b", seeds=(1,), seed_sd=None, forgotten=None, **facts, **more)  # type: ignore[arg-type]
    return [one, two]


def _methods(name: str = "lo_ra") -> PaperTable:
    return method_table(_rows(name), [])


def test_methods_without_an_interval_have_a_dash_and_no_bar() -> None:
    one, two = _rows()
    unknown = replace(one, interval=Interval(math.nan, math.nan), seed_sd=None)  # two seeds, one test sample
    table = write_table(method_table([unknown], []), "markdown", "en")
    assert "nan" not in table
    cells = next(line for line in table.splitlines() if line.startswith("| lo")).split("|")
    assert cells[5].strip() == "–"
    assert "what another seed would do is unknown" not in table
    assert method_figures([unknown], "en") == {}
    assert method_figures([unknown, two], "en")["comparison.svg"].count("<circle") == 1


def test_methods_say_in_words_how_weights_were_quantised(tmp_path: Path) -> None:
    more = {"bnb_4bit_use_double_quant": "True", "llm_int8_skip_modules": "['model.qformer', 'lm_head']"}
    config = {"load_in_4bit": "True", "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float16"}
    decoding = {"greedy": True, "max_new_tokens": 64, "quantization": config | more}
    folder = make_evaluation(tmp_path / "evaluation", decoding=decoding)
    assert main(["report", str(folder), "--output", str(tmp_path / "paper")]) == 0
    text = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    words = "linear layers in 4 bits (nf4, bitsandbytes, double quantisation; not model.qformer, lm_head), computed in"
    assert f"{words} float16." in text.replace("\\_", "_")
    assert "load_in_4bit" not in text


RESULT = compare_paired([0.0] * 10, [1.0, 0.0] * 5)


def _pairs(name: str = "lo_ra") -> PaperTable:
    return pair_table([MethodTest(f"xray/{name}", "xray/b", RESULT, RESULT.p_value, None)])


@pytest.mark.parametrize("format", FORMATS)
def test_methods_and_pairs(format: str) -> None:
    methods, pairs = (write_table(table, format, "en") for table in (_methods(), _pairs()))
    interval, result = Interval(0.775, 0.925), RESULT
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(methods)))
        assert [float(rows[0][name]) for name in ("after", "interval_low", "interval_high")] == [0.85, *interval]
        assert rows[1]["seed_sd"] == rows[1]["peak_memory_bytes"] == ""
        assert float(next(csv.DictReader(io.StringIO(pairs)))["difference"]) == result.difference
        return
    assert "85.0" in methods
    assert "77.5 to 92.5" in methods
    assert "+50.0" in pairs
    assert "what another seed would do is unknown" in methods
    if format == "latex":
        check_latex(methods)
        check_latex(pairs)
