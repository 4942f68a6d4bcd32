"""What a chest radiograph's report says of the 14 classes of CheXpert, in English and Chinese, by rules.

```
label_report("Heart size normal. Small left pleural effusion, possible pneumonia. No pneumothorax.")
    {"Cardiomegaly": "negative", "Pleural Effusion": "positive", "Pneumonia": "uncertain", "Pneumothorax": "negative"}
label_report("心影增大，双肺未见实变，右侧胸腔积液可能。")
    {"Cardiomegaly": "positive", "Consolidation": "negative", "Pleural Effusion": "uncertain"}
```

A report is cut into clauses; in each, a finding's words are looked for, then words of negation and of doubt around
them. These are rules, not a clinician and not CheXbert: they miss wordings that are not listed, and the signature says
so. For comparison with published figures use CheXbert on your copy of its weights (`metrics.external.chexbert`).

Source: the classes and the order mention -> negation -> uncertainty of Irvin et al. 2019, "CheXpert: a large chest
radiograph dataset with uncertainty labels and expert comparison". The lists of words are this project's own.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from vglm.evaluation.metrics.base import Metric, Rows, normalise
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.statistics import Interval, bootstrap_interval, mean_of_sums, wilson_interval

Certainty = Literal["positive", "negative", "uncertain"]

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"

_MENTIONS = {
    "Enlarged Cardiomediastinum": (
        r"(?:enlarged|widened|widening of the|prominent|wide) (?:cardio)?mediastin\w*(?: silhouette| contours?)?"
        r"|mediastinal (?:widening|enlargement)|(?:cardio)?mediastin(?:um|al)(?: silhouette| contours?)?"
        r"|纵隔(?:影)?(?:增宽|增大|变宽)?"
    ),
    "Cardiomegaly": (
        r"cardiomegaly|enlarged (?:heart|cardiac silhouette)|cardiac enlargement"
        r"|(?:heart|cardiac)(?: (?!not\b)\w+){0,4} enlarged|(?:heart|cardiac)(?: size| silhouette)?"
        r"|(?:心影|心脏)(?:明显|轻度|略|稍|显著)*(?:增大|扩大|饱满)|心胸比例?(?:增大|增加)|心影|心脏|心胸比"
    ),
    "Lung Lesion": (
        r"(?:lung|pulmonary) (?:mass|nodule|lesion|tumou?r)\w*|nodul\w+|\bmass(?:es)?\b|granuloma\w*"
        r"|结节|肿块|占位|肿瘤|肺癌|肉芽肿"
    ),
    "Lung Opacity": (
        r"opaci\w+|airspace disease|infiltrat\w+|interstitial (?:markings|thickening)|reticula\w+|densit(?:y|ies)"
        r"|(?:片|斑点|斑|条索|絮|云雾|点|团|网|磨玻璃|密度增高)[状样片]*(?:模糊)?(?:高?密度)?(?:增高)?阴?影"
        r"|渗出|浸润|磨玻璃|阴影"
    ),
    "Edema": (
        r"(?:pulmonary |interstitial |alveolar )?o?edema\b|vascular congestion|pulmonary congestion"
        r"|肺水肿|肺淤血|间质性?水肿"
    ),
    "Consolidation": r"consolidat\w+|实变",
    "Pneumonia": r"pneumonia\w*|infectio\w+|bronchopneumonia|肺炎|肺部感染|感染",
    "Atelectasis": r"atelecta\w+|collapse[ds]?\b|volume loss|不张|萎陷",
    "Pneumothorax": r"pneumothora\w+|气胸",
    "Pleural Effusion": (
        r"(?:pleural )?effusions?|pleural fluid|hydrothorax|blunt\w* (?:of )?(?:the )?(?:\w+ )?(?:costophrenic|cp) \w+"
        r"|(?:costophrenic|cp) (?:angles?|sulc\w+)|积液|胸水|肋膈角(?:变钝|模糊|消失)?"
    ),
    "Pleural Other": (
        r"pleural (?:thickening|scarring|plaques?|calcification|fibrosis)|fibrothorax|胸膜(?:增厚|粘连|肥厚|钙化)"
    ),
    "Fracture": r"fractur\w+|骨折",
    SUPPORT_DEVICES: (
        r"pacemaker|pacer|\bicd\b|catheter|\btubes?\b|\blines?\b|\bpicc\b|sternotomy|\bclips?\b|stent|prosthe\w+"
        r"|port-?a-?cath|leads?\b|\bdevices?\b|\bwires?\b|起搏器|导管|引流管|插管|置管|胃管|内固定|支架"
    ),
}
FINDINGS = (NO_FINDING, *_MENTIONS)
"""CheXpert's 14 classes."""
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""Those that CheXpert's leaderboard, and the "5" of published F1 scores, is about."""

_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _MENTIONS.items()}

# A sentence ends at a stop, a clause where the topic turns. A comma ends a Chinese clause; an English list goes on.
_SENTENCE = re.compile(r"[。；;!?！？\n]|\.(?!\d)")
_CLAUSE = re.compile(r"，|\b(?:but|however|although|except|though)\b|但|而", re.IGNORECASE)

_NEGATED_BEFORE = re.compile(
    r"\b(?:no|not|without|negative for|free of|absence of|resolved|resolution of|removal of|clear of|ruled out|nor)\b"
    r"|未|没有|无|不伴|排除",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"^[^,]{0,40}?\b(?:no longer|been (?:resolved|excluded|ruled out)|not (?:\w+ )?(?:seen|identified|present|enlarged)"
    r"|(?:is|are|has|have) resolved|removed|absent|excluded|ruled out)\b"
    r"|^[^,]{0,6}(?:未见|不明显|消失|已排除|不大|无明显|未)",
    re.IGNORECASE,
)
_NORMAL = re.compile(
    r"\b(?:normal|unremarkable|within normal limits|clear|sharp|intact|not enlarged)\b"
    r"|正常|清晰|锐利|不大|不宽|居中|无异常|光整|完整",
    re.IGNORECASE,
)
_NOT_EXCLUDED = re.compile(
    r"can ?not (?:\w+ ){0,3}(?:excluded?|ruled? out)|difficult to exclude|not excluded"
    r"|不(?:能)?(?:除外|排除)|待排|待查",
    re.IGNORECASE,
)
_UNCERTAIN_BEFORE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|may|might|could|suspect\w*|suspicious|questionable|likely|equivocal|suggest\w*|versus"
    r"|vs|concern\w*|consider|borderline|presumed|to exclude|rule out)\b|可能|疑|考虑|倾向|或许|似|(?<!已)除外",
    re.IGNORECASE,
)
_UNCERTAIN_AFTER = re.compile(
    r"^(?: \w+){0,3}? (?:possible|probable|suspected|likely|questionable|equivocal|indeterminate|versus|vs)\b"
    r"(?! (?:for|due|represent|reflect|relat))|^[^考]{0,6}(?:可能|待定|？|\?)",
    re.IGNORECASE,
)
_ORGAN = re.compile(
    r"cardiomediastin|mediastin|heart|cardiac|costophrenic|cp |心影|心脏|心胸比|纵隔|肋膈角", re.IGNORECASE
)
_ENLARGED = re.compile(r"enlarg|widen|prominent|wide |blunt|obscur|增|扩|变宽|饱满|变钝|模糊|消失", re.IGNORECASE)
_RANK = {"positive": 2, "uncertain": 1, "negative": 0}


def label_report(report: str) -> dict[str, Certainty]:
    """Say what a report holds of each finding.

    Args:
        report: English or Chinese text, or both.

    Returns:
        Finding -> "positive", "negative" or "uncertain"; a finding that is not spoken of is left out. Where clauses
        differ, positive wins over uncertain, and that over negative. "No Finding" is positive where no other class but
        the devices is positive or uncertain, and left out otherwise; an empty text has no labels at all.
    """
    return dict(_label(report))


@lru_cache(maxsize=20_000)
def _label(report: str) -> Mapping[str, Certainty]:
    """The same; several metrics and slices ask for the same report."""
    text = normalise(report)
    found: dict[str, Certainty] = {}
    for sentence in _SENTENCE.split(text):
        for clause in _CLAUSE.split(_chinese_commas(sentence)):
            for name, pattern in _PATTERNS.items():
                for mention in pattern.finditer(clause):
                    certainty = _judge(clause, mention)
                    if certainty is not None and _RANK[certainty] >= _RANK[found.get(name, "negative")]:
                        found[name] = certainty
    if text and not any(found.get(name) in ("positive", "uncertain") for name in _MENTIONS if name != SUPPORT_DEVICES):
        found[NO_FINDING] = "positive"
    return found


def _chinese_commas(sentence: str) -> str:
    """NFKC made the comma of Chinese an ASCII one; beside Han characters it ends a clause."""
    return re.sub(r"(?<=[\u4e00-\u9fff）)]),|,(?=\s*[\u4e00-\u9fff])", "，", sentence)


def _judge(clause: str, mention: re.Match[str]) -> Certainty | None:
    """What a clause says of one mention; None where it only names an organ."""
    before, after = clause[: mention.start()], clause[mention.end() :]
    lead, tail = before.rpartition(",")[2], after.partition(",")[0]  # the item of a list that the mention stands in
    is_list = (
        re.search(r"\b(?:or|nor|and)\b", clause) is not None
    )  # "no A, B or C" denies all, "no A, small B" does not
    denied = before if is_list else lead
    is_negated = _NEGATED_BEFORE.search(denied) is not None or _NEGATED_AFTER.search(after) is not None
    if _ORGAN.match(mention[0]) and not _ENLARGED.search(mention[0]):  # neither good nor bad by itself
        if is_negated or _NORMAL.search(lead + mention[0] + tail):
            return "negative"
        if not _ENLARGED.search(after):
            return None
    if _NOT_EXCLUDED.search(clause):
        return "uncertain"
    if is_negated:
        return "negative"
    is_doubted = _UNCERTAIN_BEFORE.search(lead) is not None or _UNCERTAIN_AFTER.search(tail) is not None
    return "uncertain" if is_doubted else "positive"


def is_abnormal(report: str) -> bool:
    """Whether a report names a positive or uncertain finding besides devices."""
    return label_report(report).get(NO_FINDING) is None and bool(report.strip())


def is_there(labels: Mapping[str, Certainty], name: str, uncertain: Certainty = "positive") -> bool:
    """Whether a finding counts as there; uncertain ones count as positive, as in F1-CheXbert, or as negative."""
    return labels.get(name) == "positive" or (labels.get(name) == "uncertain" and uncertain == "positive")


def count_labels(
    pairs: Sequence[tuple[Mapping[str, Certainty], Mapping[str, Certainty]]], uncertain: Certainty = "positive"
) -> Rows:
    """The additive counts that every F1 of findings is made of.

    Args:
        pairs: (what the reference says, what the prediction says) of each study.
        uncertain: What uncertain findings count as.

    Returns:
        For each of `FINDINGS` (in the reference), then (in the prediction), then (in both), shape (n, 42).
    """
    rows = np.zeros((len(pairs), 3, len(FINDINGS)))
    for row, (true, named) in zip(rows, pairs, strict=True):
        row[0] = [is_there(true, name, uncertain) for name in FINDINGS]
        row[1] = [is_there(named, name, uncertain) for name in FINDINGS]
        row[2] = row[0] * row[1]
    return rows.reshape(len(pairs), -1)


def finding_rows(records: Sequence[Prediction]) -> Rows:
    """`count_labels` of records by the rules; an error has no findings."""
    answers = [label_report(each.prediction) if each.error is None else {} for each in records]
    return count_labels([(label_report(each.reference), named) for each, named in zip(records, answers, strict=True)])


def _parts(sums: Rows, names: Sequence[str] = FINDINGS) -> tuple[Rows, Rows, Rows]:
    """(true, named, both) of some of the findings, each of shape (..., len(names))."""
    places = [FINDINGS.index(name) for name in names]
    true, named, both = np.split(sums, 3, axis=-1)
    return true[..., places], named[..., places], both[..., places]


def micro_f1(sums: Rows, names: Sequence[str] = FINDINGS) -> Rows:
    """F1 of all findings' counts together; 0 where nothing is there and nothing named."""
    true, named, both = (part.sum(axis=-1) for part in _parts(sums, names))
    return np.asarray(2 * both / np.maximum(true + named, 1))


def macro_f1(sums: Rows, names: Sequence[str] = FINDINGS) -> Rows:
    """The mean F1 over all these classes, 0 for one that nobody has: as scikit-learn, and so F1-CheXbert, counts."""
    true, named, both = _parts(sums, names)
    return np.asarray((2 * both / np.maximum(true + named, 1)).mean(axis=-1))


def _macro_f1_of_references(sums: Rows) -> Rows:
    """Over the classes that references have; a class that only predictions have lowers the micro F1."""
    true, named, both = _parts(sums)
    scores = np.where(true > 0, 2 * both / np.maximum(true + named, 1), 0.0)
    return np.asarray(scores.sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1))


def _abnormal_rows(records: Sequence[Prediction]) -> Rows:
    """(abnormal in both, abnormal in the reference), shape (n, 2)."""
    true = np.array([is_abnormal(each.reference) for each in records], dtype=np.float64)
    named = np.array([each.error is None and is_abnormal(each.prediction) for each in records], dtype=np.float64)
    return np.stack([true * named, true], axis=1)


def _normal_rows(records: Sequence[Prediction]) -> Rows:
    """(normal in both, normal in the reference), shape (n, 2)."""
    true = np.array([not is_abnormal(each.reference) for each in records], dtype=np.float64)
    answers = ["" if each.error is not None else each.prediction.strip() for each in records]
    named = np.array([answer != "" and not is_abnormal(answer) for answer in answers], dtype=np.float64)
    return np.stack([true * named, true], axis=1)


def finding_table(records: Sequence[Prediction]) -> dict[str, dict[str, object]]:
    """How well each finding is reported, by the rules.

    Args:
        records: At least one; their `group` says which of them belong together.

    Returns:
        Finding -> `n` (in references), `named` (in predictions), and `precision`, `recall` and `f1`, each with its
        `…_interval`, 95 %: Wilson's for shares of independent records, else the bootstrap's by group. None where
        undefined, an interval also where all resamples agree, which shows no doubt though there is some. JSON-able.
    """
    rows, groups = finding_rows(records), [(record.split, record.group) for record in records]
    is_independent = len(set(groups)) == len(groups)
    table = {}
    for name in FINDINGS:
        columns = np.stack([part[:, 0] for part in _parts(rows, [name])], axis=1)
        true, named, both = (int(each) for each in columns.sum(axis=0))
        shares = {"precision": ([2, 1], both, named), "recall": ([2, 0], both, true)}
        entry: dict[str, object] = {"n": true, "named": named}
        for share, (places, hits, count) in shares.items():
            entry[share] = hits / count if count else None
            ends = (
                wilson_interval(hits, count)
                if is_independent and count
                else bootstrap_interval(columns[:, places], groups=groups, statistic=mean_of_sums)
            )
            entry[f"{share}_interval"] = _shown(ends) if count else [None, None]
        entry["f1"] = 2 * both / (true + named) if true + named else None
        ends = bootstrap_interval(columns, groups=groups, statistic=_f1)
        entry["f1_interval"] = _shown(ends) if true + named else [None, None]
        table[name] = entry
    return table


def _f1(sums: Rows) -> Rows:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * sums[..., 2] / (sums[..., 0] + sums[..., 1]))


def _shown(ends: Interval) -> list[float | None]:
    return [float(ends.low), float(ends.high)] if ends.low < ends.high else [None, None]


def by_abnormality(records: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The slices "normal" and "abnormal", by what the references say; empty ones are left out."""
    slices: dict[str, list[Prediction]] = {"normal": [], "abnormal": []}
    for record in records:
        slices["abnormal" if is_abnormal(record.reference) else "normal"].append(record)
    return {name: rows for name, rows in slices.items() if rows}


_HOW = "rule-based labeller 1, zh and en|14 CheXpert classes|uncertain counts as positive|any case|not cut|not CheXbert"
FINDINGS_MICRO_F1 = Metric("findings_micro_f1", "Findings, micro-F1", _HOW, table=finding_rows, statistic=micro_f1)
FINDINGS_MACRO_F1 = Metric(
    "findings_macro_f1",
    "Findings, macro-F1",
    f"{_HOW}|classes of the references",
    table=finding_rows,
    statistic=_macro_f1_of_references,
)
ABNORMAL_RECALL = Metric(
    "abnormal_recall", "Abnormal studies found", f"{_HOW}|abnormal: any but devices", table=_abnormal_rows
)
NORMAL_RECALL = Metric(
    "normal_recall", "Normal studies called normal", f"{_HOW}|normal: none but devices", table=_normal_rows
)
