"""What sentences of reports say of a finding: each is one example of a kind of wording."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.evaluation.score.metrics.findings import FINDINGS
from vglm.text.labeller import label_report

HEART = "Cardiomegaly"
EFFUSION = "Pleural Effusion"
AIR = "Pneumothorax"
OPACITY = "Lung Opacity"
EDEMA = "Edema"
LESION = "Lung Lesion"
DEVICES = "Support Devices"
PNEUMONIA = "Pneumonia"
CONSOLIDATION = "Consolidation"
ATELECTASIS = "Atelectasis"
MEDIASTINUM = "Enlarged Cardiomediastinum"
PLEURA = "Pleural Other"
FRACTURE = "Fracture"
NOTHING = "No Finding"

SENTENCES = [
    ("There is no evidence that the effusion has resolved.", EFFUSION, "positive"),
    ("没有证据表明胸腔积液已消失。", EFFUSION, "positive"),
    ("没有证据表明存在胸腔积液。", EFFUSION, "negative"),
    ("Evaluate for pneumothorax.", AIR, None),
    ("Rule out pneumonia.", PNEUMONIA, "uncertain"),
    ("Pneumonia has been ruled out.", PNEUMONIA, "negative"),
    ("肺炎已治愈。", PNEUMONIA, "negative"),
    ("心胸比例正常范围上限。", HEART, "uncertain"),
    ("双肺纹理清，未见渗出。", OPACITY, "negative"),
    ("右肺见渗出。", OPACITY, "positive"),
    ("Borderline cardiomegaly with midline sternotomy scar.", "Support Devices", None),
    ("Sternotomy wires and a midline sternotomy scar.", "Support Devices", "positive"),
    ("有胸骨中线切口疤痕。", "Support Devices", None),
    ("These nodules may indicate a sequela of infection.", "Pneumonia", None),
    ("这些结节可能是感染的后遗症。", "Pneumonia", None),
    ("心脏明显增大。", HEART, "positive"),
    ("心脏未见明显增大。", HEART, "negative"),
    ("心脏大小在正常上限。", HEART, "uncertain"),
    ("心影饱满。", HEART, "positive"),
    ("心胸比增大。", HEART, "positive"),
    ("心影大。", HEART, "positive"),
    ("没有心脏肿大的证据。", HEART, "negative"),
    ("心脏不大,主动脉增宽。", HEART, "negative"),
    ("心脏大小正常,主动脉突出。", HEART, "negative"),
    ("心脏大小正常,主动脉突出。", MEDIASTINUM, None),
    ("纵隔未见增宽。", MEDIASTINUM, "negative"),
    ("上纵隔影增宽。", MEDIASTINUM, "positive"),
    ("纵隔无移位。", MEDIASTINUM, None),
    ("右肺下叶大片实变。", CONSOLIDATION, "positive"),
    ("未见实变影。", CONSOLIDATION, "negative"),
    ("右下肺合并区域。", CONSOLIDATION, "positive"),
    ("双肺未见渗出及实变。", CONSOLIDATION, "negative"),
    ("左下肺渗出性病变。", OPACITY, "positive"),
    ("左下肺渗出性病变。", EFFUSION, None),
    ("右肺浸润影。", OPACITY, "positive"),
    ("两肺纹理清晰，未见异常密度影。", OPACITY, "negative"),
    ("双肺磨玻璃影，较前吸收。", OPACITY, "positive"),
    ("双肺无片状影。", OPACITY, "negative"),
    ("右侧胸腔积液已完全吸收。", EFFUSION, "negative"),
    ("右侧胸腔积液未见明显变化。", EFFUSION, "positive"),
    ("胸腔积液消失。", EFFUSION, "negative"),
    ("右侧肋膈角变钝。", EFFUSION, "positive"),
    ("双侧肋膈角清晰。", EFFUSION, "negative"),
    ("胸腔积液不能除外。", EFFUSION, "uncertain"),
    ("心包积液。", EFFUSION, None),
    ("右侧少量胸水。", EFFUSION, "positive"),
    ("未见胸腔积液及气胸。", AIR, "negative"),
    ("右侧气胸，肺压缩30%。", AIR, "positive"),
    ("气胸较前减少。", AIR, "positive"),
    ("气胸已吸收。", AIR, "negative"),
    ("肺炎已吸收。", PNEUMONIA, "negative"),
    ("符合肺炎表现。", PNEUMONIA, "positive"),
    ("不支持肺炎。", PNEUMONIA, "negative"),
    ("肺炎待排。", PNEUMONIA, "uncertain"),
    ("疑似肺炎。", PNEUMONIA, "uncertain"),
    ("无肺炎征象。", PNEUMONIA, "negative"),
    ("既往肺炎病史。", PNEUMONIA, None),
    ("右中叶不张。", ATELECTASIS, "positive"),
    ("未见肺不张。", ATELECTASIS, "negative"),
    ("盘状肺不张。", ATELECTASIS, "positive"),
    ("肺水肿不明显。", EDEMA, "negative"),
    ("肺淤血。", EDEMA, "positive"),
    ("心衰。", EDEMA, "positive"),
    ("心脏肿大而无心力衰竭。", EDEMA, "negative"),
    ("心脏肿大而无心力衰竭。", HEART, "positive"),
    ("右上肺结节，性质待定。", LESION, "positive"),
    ("未见肿块。", LESION, "negative"),
    ("左肺钙化结节。", LESION, "positive"),
    ("纵隔淋巴结钙化，提示既往肉芽肿性疾病。", LESION, None),
    ("右侧胸膜增厚。", PLEURA, "positive"),
    ("胸膜钙化斑。", PLEURA, "positive"),
    ("肋骨未见明显骨折。", FRACTURE, "negative"),
    ("陈旧性肋骨骨折。", FRACTURE, "positive"),
    ("胸椎压缩性骨折。", FRACTURE, "positive"),
    ("胸12椎体楔形变。", FRACTURE, "uncertain"),
    ("气管插管已拔除。", DEVICES, "negative"),
    ("左侧PICC置入。", DEVICES, "positive"),
    ("中心静脉导管尖端位于上腔静脉。", DEVICES, "positive"),
    ("起搏器已取出。", DEVICES, "negative"),
    ("胸骨见金属线固定。", DEVICES, "positive"),
    ("除了少量胸腔积液外，未见异常。", EFFUSION, "positive"),
    ("没有气胸，但有少量积液。", EFFUSION, "positive"),
    ("没有气胸，但有少量积液。", AIR, "negative"),
    ("未见气胸，左侧胸腔积液。", EFFUSION, "positive"),
    ("未发现包括肺炎、气胸在内的急性病变。", PNEUMONIA, "negative"),
    ("没有任何活动性疾病，例如肺炎、积液。", EFFUSION, "negative"),
    ("The heart is at the upper limits of normal.", HEART, "uncertain"),
    ("Heart size is borderline.", HEART, "uncertain"),
    ("The heart is not enlarged.", HEART, "negative"),
    ("The cardiac silhouette is within normal limits.", HEART, "negative"),
    ("Heart size is top normal.", HEART, "uncertain"),
    ("The heart is slightly bigger than normal.", HEART, "positive"),
    ("Heart size exceeds normal.", HEART, "positive"),
    ("The heart appears generous in size.", HEART, "positive"),
    ("Enlargement of the cardiac silhouette.", HEART, "positive"),
    ("No evidence of cardiomegaly or edema.", EDEMA, "negative"),
    ("Widening of the mediastinum.", MEDIASTINUM, "positive"),
    ("The mediastinum is not widened.", MEDIASTINUM, "negative"),
    ("Mediastinum is midline and normal.", MEDIASTINUM, "negative"),
    ("Lungs are free from consolidation.", CONSOLIDATION, "negative"),
    ("The lungs are free of focal airspace disease.", OPACITY, "negative"),
    ("There is no pleural effusion, pneumothorax, or consolidation.", AIR, "negative"),
    ("No acute abnormality such as effusion or pneumothorax.", AIR, "negative"),
    ("No acute disease, including pneumonia, effusion and pneumothorax.", AIR, "negative"),
    ("Pneumothorax has resolved.", AIR, "negative"),
    ("Resolved pneumothorax.", AIR, "negative"),
    ("Interval resolution of the right effusion.", EFFUSION, "negative"),
    ("The effusion is no longer seen.", EFFUSION, "negative"),
    ("The effusion is resolving.", EFFUSION, "positive"),
    ("Effusion is smaller than before.", EFFUSION, "positive"),
    ("Chest tube has been pulled.", DEVICES, "negative"),
    ("The endotracheal tube was removed.", DEVICES, "negative"),
    ("Findings are consistent with old granulomatous disease.", LESION, "positive"),
    ("Old rib fracture.", FRACTURE, "positive"),
    ("History of pneumonia.", PNEUMONIA, None),
    ("Opacity may lead to misdiagnosis.", DEVICES, None),
    ("The airline pilot has clear lungs.", DEVICES, None),
    ("The midline trachea is normal.", DEVICES, None),
    ("The fissure line is thickened.", DEVICES, None),
    ("Dual lead pacemaker.", DEVICES, "positive"),
    ("Sternal wires are intact.", DEVICES, "positive"),
    ("Surgical clips in the right upper quadrant.", DEVICES, "positive"),
    ("Central line tip at the cavoatrial junction.", DEVICES, "positive"),
    ("Pneumonia is not excluded.", PNEUMONIA, "uncertain"),
    ("Cannot exclude pneumonia.", PNEUMONIA, "uncertain"),
    ("Pneumonia has been ruled out.", PNEUMONIA, "negative"),
    ("Pneumonia was ruled out, but there is a small effusion.", EFFUSION, "positive"),
    ("Lungs are hyperinflated.", NOTHING, "positive"),
    ("Blunted costophrenic angles.", EFFUSION, "positive"),
    ("Costophrenic angles are sharp.", EFFUSION, "negative"),
    ("Fluid in the pleural space.", EFFUSION, "positive"),
    ("Pericardial effusion.", EFFUSION, None),
    ("Lungs show no infiltrates.", OPACITY, "negative"),
    ("Patchy infiltrate in the left base.", OPACITY, "positive"),
    ("Increased opacity over the spine.", OPACITY, "positive"),
    ("No radiopaque foreign body.", OPACITY, None),
    ("Pulmonary vascular congestion without edema.", EDEMA, "positive"),
    ("CHF has improved.", EDEMA, "positive"),
    ("Apical pleural thickening.", PLEURA, "positive"),
    ("Calcified granuloma.", LESION, "positive"),
    ("Mass effect on the trachea.", LESION, None),
    ("Left lower lobe collapse.", ATELECTASIS, "positive"),
    ("Volume loss in the right lung.", ATELECTASIS, "positive"),
    ("Atelectasis has cleared.", ATELECTASIS, "negative"),
    ("The right lung is fully expanded without atelectasis.", ATELECTASIS, "negative"),
    ("No effusion; there is a small pneumothorax.", AIR, "positive"),
    ("No effusion and there is a small pneumothorax.", AIR, "positive"),
    ("Neither effusion nor pneumothorax.", AIR, "negative"),
    ("Pneumothorax: none.", AIR, "negative"),
    ("Pneumothorax absent.", AIR, "negative"),
    ("Without pneumothorax.", AIR, "negative"),
    ("Negative for pneumothorax, pleural effusion or focal consolidation.", CONSOLIDATION, "negative"),
    ("No displaced rib fracture.", FRACTURE, "negative"),
    (
        "Lungs are clear bilaterally with no pneumothorax or pleural effusion, and the heart is enlarged.",
        HEART,
        "positive",
    ),
    ("Left lung base consolidation is not seen.", CONSOLIDATION, "negative"),
    ("There is a questionable nodule.", LESION, "uncertain"),
    ("No suspicious nodules or masses.", LESION, "negative"),
    ("Chronic interstitial changes.", OPACITY, "positive"),
    ("Osteopenia with bone density loss.", OPACITY, None),
    ("The heart is stable and mildly enlarged.", HEART, "positive"),
    ("Heart is enlarged and unchanged.", HEART, "positive"),
    ("Heart size is normal and mediastinum is widened.", MEDIASTINUM, "positive"),
    ("Heart size is normal and mediastinum is widened.", HEART, "negative"),
    ("Heart and mediastinum are enlarged.", HEART, "positive"),
    ("The heart size and mediastinal contours are normal and the aorta is enlarged.", HEART, "negative"),
    ("No pneumothorax and mild cardiomegaly.", HEART, "positive"),
    ("No focal consolidation with mild atelectasis.", ATELECTASIS, "positive"),
    ("No cardiomegaly, effusion, or edema.", EDEMA, "negative"),
    ("No large effusion, pneumothorax.", AIR, "negative"),
    ("No effusion, heart is enlarged.", HEART, "positive"),
    ("心脏稳定且轻度增大。", HEART, "positive"),
]


@pytest.mark.parametrize(("sentence", "finding", "expected"), SENTENCES)
def test_what_a_sentence_says_of_a_finding(sentence: str, finding: str, expected: str | None) -> None:
    assert label_report(sentence).get(finding) == expected


NOUNS = {
    CONSOLIDATION: ("focal consolidation", "局灶性固结"),
    EFFUSION: ("pleural effusion", "胸腔积液"),
    AIR: ("pneumothorax", "气胸"),
    PNEUMONIA: ("pneumonia", "肺炎"),
    LESION: ("nodules", "结节"),
    OPACITY: ("infiltrates", "浸润"),
    FRACTURE: ("rib fracture", "肋骨骨折"),
}
TRIPLES = st.permutations(sorted(NOUNS)).map(lambda names: names[:3])
DENIALS = [  # (sentence, language)
    ("No {}, {} or {}.", 0), ("There is no evidence of {}, {}, or {}.", 0), ("Lungs are free from {}, {} and {}.", 0),
    ("No acute disease, such as {}, {} or {}.", 0), ("{}, {} or {} has been ruled out.", 0),
    ("Without {}, {}, or {}.", 0),
    ("The lungs are clear of {}, {} or {}, and the heart is normal.", 0),
    ("{}, {} and {} are not seen.", 0),
    ("没有{}、{}或{}的迹象。", 1), ("未见{}、{}及{}。", 1), ("无急性异常，包括{}、{}和{}。", 1),
    ("没有{}，{}或{}。", 1),
    ("已经排除了{}、{}或{}的存在。", 1), ("没有任何病变，例如{}、{}或{}。", 1),
]  # fmt: skip
CLAIMS = [
    ("There is {}, {} and {}.", 0), ("New {}; {}; {}.", 0), ("The picture shows {}, {} and {}, unchanged.", 0),
    ("可见{}、{}和{}。", 1), ("{}、{}、{}较前无明显变化。", 1), ("除了{}、{}和{}外，未见异常。", 1),
]  # fmt: skip


@given(TRIPLES, st.sampled_from(DENIALS))
def test_a_denial_reaches_over_its_list(names: list[str], denial: tuple[str, int]) -> None:
    sentence, language = denial
    labels = label_report(sentence.format(*(NOUNS[name][language] for name in names)))
    assert {name: labels.get(name) for name in names} == dict.fromkeys(names, "negative")
    assert labels["No Finding"] == "positive"


@given(TRIPLES, st.sampled_from(CLAIMS))
def test_what_is_claimed_is_there(names: list[str], claim: tuple[str, int]) -> None:
    sentence, language = claim
    labels = label_report(sentence.format(*(NOUNS[name][language] for name in names)))
    assert {name: labels.get(name) for name in names} == dict.fromkeys(names, "positive")


@pytest.mark.parametrize(("denied", "claimed"), list(itertools.permutations(sorted(NOUNS), 2)))
def test_a_denial_ends_at_but(denied: str, claimed: str) -> None:
    for language, sentence in ((0, "No {}, but there is {}."), (0, "No {}, small {}."), (1, "未见{}，但有{}。")):
        labels = label_report(sentence.format(NOUNS[denied][language], NOUNS[claimed][language]))
        assert (labels[denied], labels[claimed]) == ("negative", "positive")


@given(st.text(max_size=80))
def test_no_text_is_too_odd(text: str) -> None:
    labels = label_report(text)
    assert set(labels) <= set(FINDINGS)
    assert set(labels.values()) <= {"positive", "negative", "uncertain"}


@pytest.mark.parametrize("layout", ["{}", " {}\n", "报告：{}", "Report: {}", "{}{}"])
def test_layout_does_not_count(layout: str) -> None:
    for sentence, finding, expected in SENTENCES:
        assert label_report(layout.format(sentence, sentence)).get(finding) == expected, sentence
    assert label_report(sentence.upper()).get(finding) == expected
