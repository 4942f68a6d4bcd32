import json
from dataclasses import replace

import numpy as np
import pytest
from builders import arm, score_all

from vglm.errors import DataError
from vglm.evaluation.score.comparison import compare
from vglm.evaluation.score.metrics import ALL_METRICS, label_report
from vglm.evaluation.score.metrics.findings import (
    FINDINGS,
    FIVE,
    by_abnormality,
    count_labels,
    finding_table,
    is_abnormal,
    macro_f1,
    micro_f1,
)
from vglm.evaluation.score.statistics import wilson_interval

HEART, EFFUSION, AIR, OPACITY = "Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Lung Opacity"

# Report -> (positive, uncertain, negative), each clause labelled by reading it.
REPORTS = {
    "Heart size normal. Small left pleural effusion, possible pneumonia. No pneumothorax.": (
        {EFFUSION}, {"Pneumonia"}, {HEART, AIR},
    ),
    "No focal consolidation, pleural effusion or pneumothorax is seen.": (
        set(), set(), {"Consolidation", EFFUSION, AIR},
    ),
    "No pneumothorax, small effusion.": ({EFFUSION}, set(), {AIR}),
    "No pneumothorax but a small effusion.": ({EFFUSION}, set(), {AIR}),
    "The heart is mildly enlarged. Mediastinal contours are normal.": ({HEART}, set(), {"Enlarged Cardiomediastinum"}),
    "The heart is not enlarged.": (set(), set(), {HEART}),
    "Pneumonia cannot be excluded. Bibasilar atelectasis.": ({"Atelectasis"}, {"Pneumonia"}, set()),
    "The previously seen effusion has resolved.": (set(), set(), {EFFUSION}),
    "Costophrenic angles are sharp; dual lead pacemaker in place.": ({"Support Devices"}, set(), {EFFUSION}),
    "Right upper lobe nodule suspicious for malignancy.": ({"Lung Lesion"}, set(), set()),
    "Right consolidation concerning for pneumonia.": ({"Consolidation"}, {"Pneumonia"}, set()),
    "Bibasilar opacities, atelectasis versus pneumonia.": ({OPACITY}, {"Atelectasis", "Pneumonia"}, set()),
    "Removal of the chest tube. The mediastinum is unremarkable.": (
        set(), set(), {"Support Devices", "Enlarged Cardiomediastinum"},
    ),
    "右肺下叶片状高密度影考虑感染，建议复查除外肿瘤。": ({OPACITY}, {"Pneumonia", "Lung Lesion"}, set()),
    "心影未见增大，没有发现肺炎或肺不张的迹象，气胸消失。": (set(), set(), {HEART, "Pneumonia", "Atelectasis", AIR}),
    "Healed rib fractures. Pleural thickening at the apex.": ({"Fracture", "Pleural Other"}, set(), set()),
    "Mild pulmonary edema. Widened mediastinum.": ({"Edema", "Enlarged Cardiomediastinum"}, set(), set()),
    "心影增大，双肺未见实变，右侧胸腔积液可能。": ({HEART}, {EFFUSION}, {"Consolidation"}),
    "心影不大，双肺清晰，未见胸腔积液，未见气胸。": (set(), set(), {HEART, EFFUSION, AIR}),
    "右下肺见斑片状影，考虑感染；左侧肋膈角变钝。": ({OPACITY, EFFUSION}, {"Pneumonia"}, set()),
    "双侧肋膈角锐利，不除外肺炎。": (set(), {"Pneumonia"}, {EFFUSION}),
    "右侧肋骨骨折，双侧胸膜增厚，可见起搏器。": ({"Fracture", "Pleural Other", "Support Devices"}, set(), set()),
    "纵隔增宽，左肺不张，右上肺结节，肺水肿。": (
        {"Enlarged Cardiomediastinum", "Atelectasis", "Lung Lesion", "Edema"}, set(), set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("report", REPORTS)
def test_label_report(report: str) -> None:
    positive, uncertain, negative = REPORTS[report]
    expected = dict.fromkeys(positive, "positive") | dict.fromkeys(uncertain, "uncertain")
    expected |= dict.fromkeys(negative, "negative")
    if not (positive - {"Support Devices"} or uncertain):
        expected["No Finding"] = "positive"
    assert label_report(report) == expected


EDEMA, LESION, DEVICES = "Edema", "Lung Lesion", "Support Devices"

# What is said of one finding: a denied change means that it is there, and a denial reaches over its list.
SENTENCES = {
    "No change in the left effusion.": (EFFUSION, "positive"),
    "Without significant interval change in bilateral effusions.": (EFFUSION, "positive"),
    "No improvement in pulmonary edema, no pneumothorax.": (EDEMA, "positive"),
    "No resolution of the pneumothorax.": (AIR, "positive"),
    "The pneumothorax has not resolved.": (AIR, "positive"),
    "No enlargement of the heart.": (HEART, "negative"),
    "No change in heart size.": (HEART, None),
    "Not only cardiomegaly but also edema.": (HEART, "positive"),
    "No pneumothorax or effusion, unchanged cardiomegaly.": (HEART, "positive"),
    "The heart is larger than normal.": (HEART, "positive"),
    "The heart is not large.": (HEART, "negative"),
    "Free from effusion.": (EFFUSION, "negative"),
    "Persistent elevation of the diaphragm.": (DEVICES, None),
    "Kerley B lines.": (DEVICES, None),
    "A coronary stent.": (DEVICES, "positive"),
    "Compression deformity of T8.": ("Fracture", "uncertain"),
    "Heart failure.": (EDEMA, "positive"),
    "左侧气胸无明显变化。": (AIR, "positive"),
    "较前无明显变化的胸腔积液。": (EFFUSION, "positive"),
    "胸腔积液未见吸收。": (EFFUSION, "positive"),
    "胸腔积液已完全吸收。": (EFFUSION, "negative"),
    "胸腔积液部分吸收。": (EFFUSION, "positive"),
    "右侧气胸未见增大。": (AIR, "positive"),
    "心影未见明显增大。": (HEART, "negative"),
    "心脏没有增大。": (HEART, "negative"),
    "心脏比正常略大。": (HEART, "positive"),
    "心脏肿大。": (HEART, "positive"),
    "无法排除肺炎。": ("Pneumonia", "uncertain"),
    "未除外肺炎。": ("Pneumonia", "uncertain"),
    "没有急性病变的迹象，如气胸或胸腔积液。": (AIR, "negative"),
    "肺部清晰，没有浸润，胸腔积液或气胸。": (AIR, "negative"),
    "没有局灶性固结，右侧胸腔积水。": (EFFUSION, "positive"),
    "陈旧性肉芽肿性感染。": ("Pneumonia", None),
    "左锁骨下ICD。": (DEVICES, "positive"),
    "引流管已拔除。": (DEVICES, "negative"),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_a_sentence_says_of_a_finding(sentence: str) -> None:
    finding, expected = SENTENCES[sentence]
    assert label_report(sentence).get(finding) == expected


@pytest.mark.parametrize(
    "text", ["花。", "A red cat.", "I cannot view images.", "抱歉，我看不到图片，无法分析肺部。", " "]
)
def test_a_text_that_speaks_of_nothing_is_no_normal_study(text: str) -> None:
    assert label_report(text) == {}
    assert not is_abnormal(text)
    records = arm(("Clear lungs.", text), (text, "Clear lungs."))
    assert ALL_METRICS["normal_recall"].score(records) == 0.0
    assert ALL_METRICS["findings_micro_f1"].score(records) == 0.0
    readable = score_all(records, ["findings_readable"])["findings_readable"]
    assert (readable.value, readable.n) == (0.0, 1)  # of the one reference that can be read
    assert {name: len(part) for name, part in by_abnormality(records).items()} == {"normal": 1, "unreadable": 1}
    for name in ("findings_micro_f1", "findings_macro_f1", "normal_recall", "abnormal_recall", "findings_readable"):
        assert "precision" in ALL_METRICS[name].signature
        with pytest.raises(DataError, match="none of 1 references speaks of a chest"):
            score_all(records[1:], [name])


def test_a_refusal_says_nothing_whatever_it_names() -> None:
    assert label_report("I'm sorry, I cannot analyze this chest x-ray for pneumonia.") == {}
    assert label_report("I cannot diagnose. The heart is enlarged.")[HEART] == "positive"


def test_no_finding() -> None:
    assert label_report("The lungs are clear.") == {"No Finding": "positive"}
    assert label_report("  ") == {}
    assert not is_abnormal("Pacemaker in place.")
    assert is_abnormal("疑似肺炎")
    assert len(FINDINGS) == 14


def test_positive_wins_over_uncertain_and_negative() -> None:
    assert (
        label_report("No effusion on the left. Small effusion on the right. Possible effusion.")[EFFUSION] == "positive"
    )


# Worked by hand, hits / named / true: cardiomegaly 1/1/2, effusion 1/2/1, no finding 1/1/2 (the error names nothing)
STUDIES = arm(
    ("Enlarged heart. Effusion.", "心影增大，胸腔积液。"),
    ("Enlarged heart.", "Possible effusion."),
    ("Clear lungs.", "No pneumothorax."),
    ("Clear lungs.", None),
)


def test_scores_by_hand() -> None:
    assert ALL_METRICS["findings_micro_f1"].score(STUDIES) == pytest.approx(2 * 3 / (5 + 4))
    assert ALL_METRICS["findings_macro_f1"].score(STUDIES) == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)
    assert ALL_METRICS["abnormal_recall"].score(STUDIES) == 1.0
    assert ALL_METRICS["normal_recall"].score(STUDIES) == 0.5
    assert {name: len(part) for name, part in by_abnormality(STUDIES).items()} == {"normal": 2, "abnormal": 2}


def test_a_report_that_is_always_normal_finds_nothing_abnormal() -> None:
    same = arm(*((study.reference, "心肺未见异常。") for study in STUDIES))
    assert ALL_METRICS["abnormal_recall"].score(same) == 0.0
    assert ALL_METRICS["normal_recall"].score(same) == 1.0


def test_table_of_findings_by_hand() -> None:
    table = finding_table(STUDIES)
    assert list(table) == list(FINDINGS)
    effusion = table[EFFUSION]
    assert {name: effusion[name] for name in ("n", "named", "precision", "recall", "f1")} == {
        "n": 1, "named": 2, "precision": 0.5, "recall": 1.0, "f1": 2 / 3,
    }  # fmt: skip
    assert effusion["precision_interval"] == list(wilson_interval(1, 2))
    assert effusion["recall_interval"] == list(wilson_interval(1, 1))
    edema = {"n": 0, "named": 0, "precision": None, "recall": None, "f1": None}
    assert table["Edema"] == edema | {f"{name}_interval": [None, None] for name in ("precision", "recall", "f1")}
    json.dumps(table, allow_nan=False)


def test_pictures_of_one_study_are_no_independent_findings() -> None:
    alone = [replace(STUDIES[index % 2], id=str(index), group=str(index)) for index in range(20)]
    together = [replace(record, group=f"{index % 2} {index // 4}") for index, record in enumerate(alone)]
    narrow, wide = (finding_table(records)["Cardiomegaly"]["recall_interval"] for records in (alone, together))
    assert narrow == list(wilson_interval(10, 20))
    assert wide[1] - wide[0] > 1.2 * (narrow[1] - narrow[0])


def test_metrics_file_has_the_table_where_findings_are_scored() -> None:
    before = [replace(record, prediction="心肺未见异常。", error=None) for record in STUDIES]
    findings = compare(before, STUDIES, metrics=["findings_micro_f1"]).as_dict()["splits"]["test"]["findings"]
    answered = [record for record in STUDIES if record.error is None]  # by both arms
    assert findings["before"]["Cardiomegaly"] | {"named": 0, "recall": 0.0} == findings["before"]["Cardiomegaly"]
    assert findings["after"] == finding_table(answered)
    assert compare(before, STUDIES).as_dict()["splits"]["test"]["findings"] == {}


def test_f1_of_fourteen_and_of_five_against_a_loop() -> None:
    generator = np.random.default_rng(5)
    states = [None, "positive", "negative", "uncertain"]
    pairs = [
        tuple({name: state for name in FINDINGS if (state := states[generator.integers(4)])} for _ in range(2))
        for _ in range(30)
    ]
    for uncertain, there in (("positive", {"positive", "uncertain"}), ("negative", {"positive"})):
        sums = count_labels(pairs, uncertain).sum(axis=0)
        for names in (FINDINGS, FIVE):
            totals, scores = np.zeros(3), []
            for name in names:
                true = [pair[0].get(name) in there for pair in pairs]
                named = [pair[1].get(name) in there for pair in pairs]
                counts = np.array([sum(true), sum(named), sum(a and b for a, b in zip(true, named, strict=True))])
                scores.append(2 * counts[2] / (counts[0] + counts[1]))
                totals += counts
            assert micro_f1(sums, names) == pytest.approx(2 * totals[2] / (totals[0] + totals[1]))
            assert macro_f1(sums, names) == pytest.approx(np.mean(scores))
    nothing = count_labels([({"Edema": "positive"}, {"Edema": "positive"})])[0]
    assert macro_f1(nothing) == pytest.approx(1 / 14)  # as scikit-learn: a class that nobody has scores 0
