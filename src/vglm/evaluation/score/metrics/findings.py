"""What a chest radiograph's report says of the 14 classes of CheXpert, in English and Chinese, by rules.

```
label_report("Heart size normal. Small left pleural effusion, possible pneumonia. No pneumothorax.")
    {"Cardiomegaly": "negative", "Pleural Effusion": "positive", "Pneumonia": "uncertain", "Pneumothorax": "negative"}
label_report("心影增大，双肺未见实变，右侧胸腔积液可能。")
    {"Cardiomegaly": "positive", "Consolidation": "negative", "Pleural Effusion": "uncertain"}
```

A report is cut into clauses; in each, a finding's words are looked for, then words of negation and of doubt around
them. A denied change ("no change in the effusion") says that the thing is there. A text that speaks of nothing is
unreadable, which is not normal. These are rules, not a clinician and not CheXbert: they miss wordings that are not
listed, and the signature says so. For comparison with published figures use CheXbert on your copy of its weights
(`metrics.external.chexbert`).

Source: the classes and the order mention -> negation -> uncertainty of Irvin et al. 2019, "CheXpert: a large chest
radiograph dataset with uncertainty labels and expert comparison". The lists of words are this project's own.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.statistics import Interval, bootstrap_interval, mean_of_sums, wilson_interval
from vglm.text.normalisation import normalise

Certainty = Literal["positive", "negative", "uncertain"]

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"

_MENTIONS = {
    "Enlarged Cardiomediastinum": (
        r"(?:enlarged|widened|widening of the|prominent|wide) (?:cardio)?mediastin\w*(?: silhouette| contours?)?"
        r"|mediastinal (?:widening|enlargement)|(?:cardio)?mediastin(?:um|al)(?: silhouette| contours?)?"
        r"|纵隔(?:影|轮廓)?(?:明显|轻度|略|稍)*(?:增宽|增大|变宽|突出|饱满)?"
    ),
    "Cardiomegaly": (
        r"cardiomegaly|(?:enlarged|big|large) (?:heart|cardiac silhouette)|cardiac enlargement"
        r"|(?:heart|cardiac)(?: (?!not\b)\w+){0,4} (?:enlarged|big|large)\b"
        r"|(?:heart|cardiac)(?: size| silhouette)?\b(?! failure)"
        r"|(?:心影|心脏)(?:明显|轻度|略|稍|显著)*(?:增大|扩大|饱满|肿大|肥大)|心胸比例?(?:增大|增加)|心影|心脏|心胸比"
    ),
    "Lung Lesion": (
        r"(?:lung|pulmonary) (?:mass|nodule|lesion|tumou?r)\w*|nodul\w+|\bmass(?:es)?\b|granulomas?\b"
        r"|结节|肿块|占位|肿瘤|肺癌|肉芽肿"
    ),
    "Lung Opacity": (
        r"opaci\w+|airspace disease|infiltrat\w+|interstitial (?:markings|thickening)|reticula\w+|densit(?:y|ies)"
        r"|(?:dense|hazy|patchy) shadow\w*|haziness"
        r"|(?:片|斑点|斑|条索|絮|云雾|点|团|网|磨玻璃|密度增高)[状样片]*(?:模糊)?(?:高?密度)?(?:增高)?阴?影"
        r"|渗出|浸润|磨玻璃|阴影|不透明|高密度影|密度增高|透[亮光]度(?:减低|降低|下降)"
    ),
    "Edema": (
        r"(?:pulmonary |interstitial |alveolar )?o?edema\b|vascular congestion|pulmonary congestion"
        r"|(?:congestive |heart )+failure|\bchf\b|肺水肿|肺淤血|肺充血|间质性?水肿|心力衰竭|心衰"
    ),
    "Consolidation": r"consolidat\w+|实变|固结|巩固",
    "Pneumonia": (
        r"pneumonia\w*|(?<!granulomatous )infectio\w+|bronchopneumonia"
        r"|肺炎|肺部感染|(?<!肉芽肿性)(?<!陈旧性)感染"
    ),
    "Atelectasis": r"atelecta\w+|collapse[ds]?\b|volume loss|不张|萎陷|膨胀不全",
    "Pneumothorax": r"pneumothora\w+|气胸",
    "Pleural Effusion": (
        r"(?:pleural )?effusions?|pleural fluid|hydrothorax|blunt\w* (?:of )?(?:the )?(?:\w+ )?(?:costophrenic|cp) \w+"
        r"|(?:costophrenic|cp) (?:angles?|sulc\w+)|积液|积水|胸水|胸膜?腔内?(?:见|有|可见)?(?:少量|大量|中量)?液体"
        r"|肋膈角(?:变钝|模糊|消失)?"
    ),
    "Pleural Other": (
        r"pleural (?:thickening|scar(?:s|ring)?|plaques?|calcifications?|fibrosis)\b|fibrothorax"
        r"|胸膜(?:增厚|粘连|肥厚|钙化|瘢痕)"
    ),
    "Fracture": r"fractur\w+|(?:compression|wedge) deformit\w+|骨折|压缩变形|楔形变",
    SUPPORT_DEVICES: (
        r"pacemaker|\bpacer|\bicd\b|catheter|\btubes?\b|(?<!kerley )(?<!kerley [abc] )(?<!pleural )\blines?\b|\bpicc\b"
        r"|sternotomy|\bclips?\b|\bstents?\b|prosthe\w+|\bhardware\b"
        r"|port-?a-?cath|\bleads?\b|\bdevices?\b|\bwires?\b|起搏器|导管|引流管|插管|置管|胃管|内固定|支架"
    ),
}
FINDINGS = (NO_FINDING, *_MENTIONS)
"""CheXpert's 14 classes."""
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""Those that CheXpert's leaderboard, and the "5" of published F1 scores, is about."""

_FLAGS = re.IGNORECASE | re.ASCII  # a Han character beside a Latin word is no part of it
_PATTERNS = {name: re.compile(pattern, _FLAGS) for name, pattern in _MENTIONS.items()}
_ANY = re.compile("|".join(f"(?:{pattern})" for pattern in _MENTIONS.values()), _FLAGS)

# A sentence ends at a stop, a clause where the topic turns. A comma ends a Chinese clause; an English list goes on.
_SENTENCE = re.compile(r"[。；;!?！？\n]|\.(?!\d)")
_CLAUSE = re.compile(r"，|\b(?:but|however|although|except|though)\b|但|而", re.IGNORECASE)

# A denied change says that the thing is there: "no change in the effusion". Of an organ it is the change that counts.
_SAME = re.compile(
    r"\b(?:no|without)\b(?: [\w-]+){0,4}? (?:(?:changes?|improvement|resolution|worsening|progression|clearing"
    r"|decrease|difference) (?:in|of)\b|(?:enlargement|increase) (?:in|of)\b"
    r"(?! (?:the |overall )*(?:heart|cardiac|cardiomed|mediast|hil)))"
    r"|(?:\bnot|n't)(?: \w+){0,2}? (?:changed|resolved|improved|worsened|progressed|cleared|decreased)\b"
    r"|(?:未见|未有|没有|未|无)(?:明显|显著|明确|任何)*(?:的)?"
    r"(?:变化|改变|吸收|好转|消散|消退|减少|缩小|加重|进展|增多|增加)"
    r"|(?<![心隔])(?<!心[影脏])(?<!纵隔影)(?:未见|没有|未|无)(?:明显|显著)?(?:增大|扩大)(?!的?[心纵])",
    _FLAGS,
)
_LARGER = re.compile(
    r"(?:larger|bigger|greater|wider) than (?:is )?normal|above (?:the )?(?:upper )?(?:limits? of )?normal"
    r"|(?:比|较|大于|超过)正常(?:值|上限|范围)?(?:略|稍|明显|轻度)*[大宽]?",
    _FLAGS,
)
_LIST = re.compile(r"^\s*(?:如|例如|比如|诸如|包括|以及|或|和|及)")
_BARE = re.compile(r"[\s双两左右侧肺下上中叶部底胸腔膜局灶性的明显急慢、或和及与]*")

_NEGATED_BEFORE = re.compile(
    r"\b(?:no|not|without|negative for|free (?:of|from)|absence of|resolved|resolution of|removal of|clear of"
    r"|ruled out|nor)\b"
    r"|未|没有|无|不伴|排除",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"^[^,]{0,40}?\b(?:no longer|been (?:resolved|excluded|ruled out)"
    r"|not (?:\w+ )?(?:seen|identified|present|enlarged|large|big|widened|prominent)"
    r"|(?:is|are|has|have) resolved|removed|absent|excluded|ruled out)\b"
    r"|^[^,]{0,6}(?:未见|不明显|消失|已排除|不大|无明显|未)"
    r"|^[^,]{0,4}(?:已|完全|基本|全部)+(?:吸收|消散|消退|拔除|拔出|取出|移除|撤除|排出)",
    _FLAGS,
)
_NORMAL = re.compile(
    r"\b(?:normal|unremarkable|within normal limits|clear|sharp|intact|not enlarged)\b"
    r"|正常|清晰|锐利|不大|不宽|居中|无异常|光整|完整",
    re.IGNORECASE,
)
_NOT_EXCLUDED = re.compile(
    r"can ?not (?:\w+ ){0,3}(?:excluded?|ruled? out)|difficult to exclude|not excluded"
    r"|(?:不(?:能|可)?|未(?:能)?|无法|难以)(?:完全)?(?:除外|排除)|待排|待查|待除外",
    _FLAGS,
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
    r"cardiomediastin|mediastin|heart(?! failure)|cardiac|costophrenic|cp |心影|心脏|心胸比|纵隔|肋膈角", re.IGNORECASE
)
_ENLARGED = re.compile(
    r"enlarg|widen|prominent|wide |\bbig\b|\blarge\b|blunt|obscur|增|扩|变宽|饱满|突出|肿大|肥大|变钝|模糊|消失", _FLAGS
)
_NOT_ENLARGED = re.compile(r"^[^,]{0,4}(?:没有|无|不|未见?)(?:明显|显著)?(?:增|扩|肥|肿|变|宽|突|饱|异常)")
_DEFORMED = re.compile(r"deformit|变形|楔形变", _FLAGS)
_SPEAKS = re.compile(
    r"lung|pulmon|chest|thora|heart|cardi|pleura|mediastin|diaphragm|\bhil(?:um|a|ar)\b|\brib|normal|unremarkable"
    r"|\bclear\b|abnormal|acute|disease|x-?ray|radiograph|finding|肺|胸|心[影脏肺胸]|膈|纵隔|肋|异常|正常|病变|X线|气管",
    _FLAGS,
)
_REFUSES = re.compile(
    r"(?:cannot|can't|can not|unable to|not able to) (?:view|see|interpret|analy[sz]e|access|provide|assist|diagnose)"
    r"|(?:无法|不能)(?:直接)?(?:查看|看到|分析|提供|解读|诊断|处理)|看不到",
    _FLAGS,
)
_RANK = {"positive": 2, "uncertain": 1, "negative": 0}


def label_report(report: str) -> dict[str, Certainty]:
    """Say what a report holds of each finding.

    Args:
        report: English or Chinese text, or both.

    Returns:
        Finding -> "positive", "negative" or "uncertain"; a finding that is not spoken of is left out. Where clauses
        differ, positive wins over uncertain, and that over negative. "No Finding" is positive where no other class but
        the devices is positive or uncertain, and left out otherwise. A text that speaks of no chest at all (nothing, a
        refusal, "花。") is unreadable: it has no labels, and is not taken for a normal study.
    """
    return dict(_label(report))


@lru_cache(maxsize=20_000)
def _label(report: str) -> Mapping[str, Certainty]:
    """The same; several metrics and slices ask for the same report."""
    text = normalise(report)
    found: dict[str, Certainty] = {}
    if _REFUSES.search(text):
        return found
    for sentence in _SENTENCE.split(text):
        for clause in _clauses(sentence):
            for name, pattern in _PATTERNS.items():
                for mention in pattern.finditer(clause):
                    certainty = _judge(clause, mention)
                    if certainty is not None and _RANK[certainty] >= _RANK[found.get(name, "negative")]:
                        found[name] = certainty
    is_abnormal = any(found.get(name) in ("positive", "uncertain") for name in _MENTIONS if name != SUPPORT_DEVICES)
    if (found or _SPEAKS.search(text)) and not is_abnormal:
        found[NO_FINDING] = "positive"
    return found


def _clauses(sentence: str) -> list[str]:
    """The clauses of a sentence, each of which is judged by itself; a Chinese list goes on behind its comma."""
    plain = _LARGER.sub(" enlarged 增大", _SAME.sub(" unchanged 如前", re.sub(r"(?i)\bnot only\b", " ", sentence)))
    clauses: list[str] = []
    for clause in _CLAUSE.split(_chinese_commas(plain)):
        is_bare = "或" in clause and _BARE.fullmatch(_ANY.sub("", clause)) is not None
        if clauses and (_LIST.match(clause) or is_bare) and _NEGATED_BEFORE.search(clauses[-1]):
            clauses[-1] += f"、{clause}"
        else:
            clauses.append(clause)
    return clauses


def _chinese_commas(sentence: str) -> str:
    """NFKC made the comma of Chinese an ASCII one; beside Han characters it ends a clause."""
    return re.sub(r"(?<=[\u4e00-\u9fff）)]),|,(?=\s*[\u4e00-\u9fff])", "，", sentence)


def _judge(clause: str, mention: re.Match[str]) -> Certainty | None:
    """What a clause says of one mention; None where it only names an organ."""
    before, after = clause[: mention.start()], clause[mention.end() :]
    lead, tail = before.rpartition(",")[2], after.partition(",")[0]  # the item of a list that the mention stands in
    # "no A, B or C" denies all, "no A, small B" and "no A or B, small C" do not
    is_list = re.search(r"\b(?:or|nor|and)\b", lead + mention[0] + after) is not None
    denied = before if is_list else lead
    is_negated = _NEGATED_BEFORE.search(denied) is not None or _NEGATED_AFTER.search(after) is not None
    if _ORGAN.match(mention[0]) and not _ENLARGED.search(mention[0]):  # neither good nor bad by itself
        is_changed = _ENLARGED.search(after) is not None
        if is_negated or _NOT_ENLARGED.search(after) or (not is_changed and _NORMAL.search(lead + mention[0] + tail)):
            return "negative"
        if not _ENLARGED.search(after):
            return None
    if _NOT_EXCLUDED.search(clause):
        return "uncertain"
    if is_negated:
        return "negative"
    if _DEFORMED.search(mention[0]):
        return "uncertain"
    is_doubted = _UNCERTAIN_BEFORE.search(lead) is not None or _UNCERTAIN_AFTER.search(tail) is not None
    return "uncertain" if is_doubted else "positive"


def is_there(labels: Mapping[str, Certainty], name: str, uncertain: Certainty = "positive") -> bool:
    """Whether a finding counts as there; uncertain ones count as positive, as in F1-CheXbert, or as negative."""
    return labels.get(name) == "positive" or (labels.get(name) == "uncertain" and uncertain == "positive")


def is_abnormal(report: str) -> bool:
    """Whether a report names a positive or uncertain finding besides devices."""
    labels = label_report(report)
    return any(is_there(labels, name) for name in labels if name not in (NO_FINDING, SUPPORT_DEVICES))


def is_normal(report: str) -> bool:
    """Whether a report can be read and names no finding besides devices."""
    return NO_FINDING in label_report(report)


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
    true = np.array([is_normal(each.reference) for each in records], dtype=np.float64)
    named = np.array([each.error is None and is_normal(each.prediction) for each in records], dtype=np.float64)
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
    """The slices "normal", "abnormal" and "unreadable", by what the references say; empty ones are left out."""
    slices: dict[str, list[Prediction]] = {"normal": [], "abnormal": [], "unreadable": []}
    for record in records:
        kind = (
            "abnormal" if is_abnormal(record.reference) else "normal" if is_normal(record.reference) else "unreadable"
        )
        slices[kind].append(record)
    return {name: rows for name, rows in slices.items() if rows}


_HOW = (
    "rule-based labeller 2, zh and en|unreadable texts have no label|14 CheXpert classes|uncertain counts as positive"
    "|any case|not cut|not CheXbert"
)
FINDINGS_MICRO_F1 = Metric(
    "findings_micro_f1",
    "Findings, micro-F1",
    _HOW,
    table=finding_rows,
    statistic=micro_f1,
    kind="findings",
    title_zh="征象微平均 F1",
)
FINDINGS_MACRO_F1 = Metric(
    "findings_macro_f1",
    "Findings, macro-F1",
    f"{_HOW}|classes of the references",
    table=finding_rows,
    statistic=_macro_f1_of_references,
    kind="findings",
    title_zh="征象宏平均 F1",
)
ABNORMAL_RECALL = Metric(
    "abnormal_recall",
    "Abnormal studies found",
    f"{_HOW}|abnormal: any but devices",
    table=_abnormal_rows,
    title_zh="异常检出率",
)
NORMAL_RECALL = Metric(
    "normal_recall",
    "Normal studies called normal",
    f"{_HOW}|normal: none but devices",
    table=_normal_rows,
    title_zh="正常识别率",
)
