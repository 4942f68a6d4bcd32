import json
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.readers import formats
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.evaluation.score.metrics import label_report
from vglm.text.prompt import LANGUAGES
from vglm.worlds.radiograph_render import cardiothoracic_ratio, render
from vglm.worlds.radiograph_reports import QUESTIONS, write_report
from vglm.worlds.radiograph_studies import (
    RadiographStudies,
    describe,
    main,
    radiograph_splits,
    write_radiograph_set,
)
from vglm.worlds.radiographs import (
    COLLAPSED,
    DEVICE,
    EFFUSED,
    ENLARGED,
    OPAQUE,
    SIDES,
    VIEWS,
    ZONES,
    Chest,
    Device,
    Heart,
    Opacity,
    sample_chest,
)

NORMAL_REPORTS = {
    "zh": "心影不大，双肺清晰，未见胸腔积液，未见气胸，未见导管或起搏器。结论：胸片正常。",
    "en": "Normal heart. Clear lungs. No effusion. No pneumothorax. No catheter or pacemaker. Normal chest.",
}
CONCLUSIONS = {"zh": ("胸片正常。", "胸片异常。"), "en": ("Normal chest.", "Abnormal chest.")}
"""Of a normal and an abnormal chest."""
HEALTHY = Chest("normal", None, "none", "none", "none", "left", anatomy_seed=5)

chests = st.builds(
    Chest,
    heart=st.sampled_from(get_args(Heart)),
    opacity=st.none() | st.builds(Opacity, side=st.sampled_from(SIDES), zone=st.sampled_from(ZONES)),
    effusion=st.sampled_from(["none", "left", "right", "both"]),
    pneumothorax=st.sampled_from(["none", "left", "right"]),
    device=st.sampled_from(get_args(Device)),
    device_side=st.sampled_from(SIDES),
    anatomy_seed=st.integers(0, 2**32 - 1),
)


def grey(chest: Chest, view: str = "frontal") -> np.ndarray:
    return np.asarray(render(chest, view))[..., 0].astype(float)


def change(finding: dict[str, object], view: str = "frontal", seed: int = 5) -> np.ndarray:
    healthy = replace(HEALTHY, anatomy_seed=seed)
    return grey(replace(healthy, **finding), view) - grey(healthy, view)


# --- the world --------------------------------------------------------------------------------------------------------


def test_findings_are_as_frequent_as_stated_and_independent():
    drawn = [sample_chest(np.random.default_rng([3, i])) for i in range(4000)]
    shares = {
        "heart": (ENLARGED, [c.heart == "enlarged" for c in drawn]),
        "opacity": (OPAQUE, [c.opacity is not None for c in drawn]),
        "effusion": (EFFUSED, [c.effusion != "none" for c in drawn]),
        "pneumothorax": (COLLAPSED, [c.pneumothorax != "none" for c in drawn]),
        "device": (DEVICE, [c.device != "none" for c in drawn]),
    }
    for share, values in shares.values():
        assert abs(np.mean(values) - share) < 0.03  # four standard errors
    correlations = np.corrcoef(np.array([values for _, values in shares.values()], dtype=float))
    assert np.abs(correlations - np.eye(len(shares))).max() < 0.065
    assert abs(np.mean([c.is_abnormal for c in drawn]) - 0.64) < 0.03


def test_no_opacity_hides_beneath_fluid():
    drawn = [sample_chest(np.random.default_rng([4, i])) for i in range(2000)]
    hidden = [c for c in drawn if c.opacity and c.opacity.zone == "lower" and c.has_effusion(c.opacity.side)]
    assert not hidden
    assert {c.opacity.zone for c in drawn if c.opacity} == set(ZONES)


@given(chests)
def test_a_device_alone_is_no_abnormality(chest):
    healthy = replace(chest, heart="normal", opacity=None, effusion="none", pneumothorax="none")
    assert not healthy.is_abnormal
    assert replace(healthy, pneumothorax="left").is_abnormal


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_equal_chests_give_equal_pictures_and_other_patients_others():
    assert render(HEALTHY).tobytes() == render(HEALTHY).tobytes()
    assert render(HEALTHY).tobytes() != render(replace(HEALTHY, anatomy_seed=6)).tobytes()
    assert render(HEALTHY, "frontal").tobytes() != render(HEALTHY, "lateral").tobytes()
    picture = render(HEALTHY, size=96)
    assert (picture.mode, picture.size) == ("RGB", (96, 96))


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_each_finding_shows_where_it_is_said_to_be(seed):
    for side, inside, outside in (("right", np.s_[:, :28], np.s_[:, 40:]), ("left", np.s_[:, 36:], np.s_[:, :24])):
        for zone, rows in (("upper", np.s_[14:26]), ("middle", np.s_[24:36]), ("lower", np.s_[36:50])):
            difference = change({"opacity": Opacity(side, zone)}, seed=seed)
            assert difference[rows][inside].max() > 40
            assert np.abs(difference[outside]).max() < 1
        fluid = change({"effusion": side}, seed=seed)
        assert fluid[40:52][inside].max() > 40
        assert np.abs(fluid[outside]).max() < 1
        assert np.abs(fluid[:30]).max() < 1
        air = change({"pneumothorax": side}, seed=seed)
        assert air[12:48][inside].min() < -25
        assert np.abs(air[outside]).max() < 1
        box = change({"device": "pacemaker", "device_side": side}, seed=seed)
        assert box[10:18][inside].max() > 40


@pytest.mark.parametrize("view", VIEWS)
def test_every_finding_shows_in_either_view(view):
    findings = [{"heart": "enlarged"}, {"effusion": "left"}, {"pneumothorax": "right"}, {"device": "catheter"}]
    findings += [{"opacity": Opacity("left", zone)} for zone in ZONES] + [{"device": "pacemaker"}]
    for finding in findings:
        assert np.abs(change(finding, view)).max() > 20, finding


def test_a_lateral_picture_does_not_tell_left_from_right():
    sides = [grey(replace(HEALTHY, pneumothorax=side), "lateral") for side in SIDES]
    assert abs(np.abs(sides[0] - sides[1]).mean()) < 2


@given(st.integers(0, 2**32 - 1))
def test_hearts_are_never_borderline(seed):
    assert 0.39 < cardiothoracic_ratio(replace(HEALTHY, anatomy_seed=seed)) < 0.48
    assert 0.57 < cardiothoracic_ratio(replace(HEALTHY, anatomy_seed=seed, heart="enlarged")) < 0.66


# --- reports ----------------------------------------------------------------------------------------------------------


def test_reports_read_as_in_the_documentation():
    chest = Chest("enlarged", Opacity("right", "middle"), "left", "none", "pacemaker", "left", 71)
    assert write_report(chest, "frontal", "zh") == (
        "心影增大，右肺中野见片状阴影，左侧胸腔积液，未见气胸，左侧见起搏器。结论：胸片异常。"
    )
    assert write_report(chest, "lateral", "en") == (
        "Enlarged heart. Opacity in the middle zone. Effusion. No pneumothorax. Pacemaker. Abnormal chest."
    )
    for language in LANGUAGES:
        assert {write_report(HEALTHY, view, language) for view in VIEWS} == {NORMAL_REPORTS[language]}


@given(chests, st.sampled_from(VIEWS), st.sampled_from(LANGUAGES))
def test_a_report_says_of_every_finding_whether_it_is_there(chest, view, language):
    labels = label_report(write_report(chest, view, language))
    truth = {
        "Cardiomegaly": chest.heart == "enlarged",
        "Lung Opacity": chest.opacity is not None,
        "Pleural Effusion": chest.effusion != "none",
        "Pneumothorax": chest.pneumothorax != "none",
        "Support Devices": chest.device != "none",
    }
    assert {name: labels.get(name) == "positive" for name in truth} == truth
    assert write_report(chest, view, language).endswith(CONCLUSIONS[language][chest.is_abnormal])


@given(chests, st.sampled_from(LANGUAGES))
def test_a_lateral_report_names_no_side(chest, language):
    other = {"left": "right", "right": "left", "none": "none", "both": "both"}
    mirrored = replace(
        chest,
        opacity=chest.opacity and Opacity(other[chest.opacity.side], chest.opacity.zone),
        effusion=other[chest.effusion],
        pneumothorax=other[chest.pneumothorax],
        device_side=other[chest.device_side],
    )
    assert write_report(chest, "lateral", language) == write_report(mirrored, "lateral", language)


# --- studies ----------------------------------------------------------------------------------------------------------


def test_a_study_is_four_samples_of_one_group():
    studies = RadiographStudies(5, seed=1)
    assert len(studies) == 20
    samples = studies[4:8]
    assert [sample.id for sample in samples] == [
        "chest-1-1_1#zh",
        "chest-1-1_1#en",
        "chest-1-1_2#zh",
        "chest-1-1_2#en",
    ]
    assert {sample.group for sample in samples} == {"chest-1-1"}
    assert [sample.question for sample in samples] == [QUESTIONS["zh"], QUESTIONS["en"]] * 2
    assert samples[0].image.tobytes() == samples[1].image.tobytes()
    assert studies[-1].id == studies[19].id == "chest-1-4_2#en"
    with pytest.raises(IndexError):
        studies[20]
    for sample in samples:
        assert sample.answer.endswith(CONCLUSIONS[sample.language][sample.meta["is_abnormal"]])
        json.dumps(dict(sample.meta))


def test_views_and_languages_can_be_chosen():
    studies = RadiographStudies(3, seed=1, views=["lateral"], languages=["en"])
    assert [(study.meta["kind"], study.language) for study in studies[:]] == [("lateral", "en")] * 3
    for wrong in ({"views": []}, {"views": ["oblique"]}, {"languages": ["zh", "zh"]}, {"studies": 0}):
        with pytest.raises(ConfigError):
            RadiographStudies(**{"studies": 3, "seed": 1, **wrong})


def test_splits_share_no_patient_and_are_known_by_their_settings():
    splits = radiograph_splits(train_studies=6, test_studies=4, seed=1, test_seed=2)
    assert not {sample.group for sample in splits.train} & {sample.group for sample in splits.test}
    assert splits.trained_on_test() == []
    other = radiograph_splits(train_studies=6, test_studies=4, seed=3, test_seed=2)
    assert other.data_hash != splits.data_hash
    with pytest.raises(ConfigError, match="both 2"):
        radiograph_splits(train_studies=6, test_studies=4, seed=2, test_seed=2)


def test_the_set_on_disk_is_in_xrayglms_format_and_whole(tmp_path):
    folder = tmp_path / "set"
    write_radiograph_set(folder, 7, train_studies=4, test_studies=2)
    rows = json.loads((folder / "train-en.json").read_text(encoding="utf-8"))["annotations"]
    assert [row["image_id"] for row in rows] == [f"{study}_{view}" for study in (1, 2, 3, 4) for view in (1, 2)]
    test = json.loads((folder / "test-zh.json").read_text(encoding="utf-8"))["annotations"]
    assert [row["image_id"] for row in test] == ["5_1", "5_2", "6_1", "6_2"]
    assert all((folder / "images" / f"{row['image_id']}.png").is_file() for row in rows + test)
    assert all(len(re.findall("[，。.]", row["caption"])) == 6 for row in rows + test)  # five findings, one conclusion
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_radiograph_set(tmp_path / "again", 7, train_studies=4, test_studies=2)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="not an empty folder"):
        write_radiograph_set(folder, 7)
    if "xrayglm" in formats():
        samples = [
            row
            for row in formats()["xrayglm"].read(folder / "train-zh.json", image_dir=folder / "images", name="x")
            if isinstance(row, Sample)
        ]
        assert [sample.group for sample in samples] == ["1", "1", "2", "2", "3", "3", "4", "4"]


def test_the_command_line_says_what_it_wrote(tmp_path, capsys):
    arguments = [str(tmp_path / "set"), "--seed", "3", "--train-studies", "1", "--test-studies", "1"]
    assert main(arguments) == 0
    assert "written with seed 3" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_described_findings_match_the_chest():
    chest = Chest("enlarged", Opacity("left", "lower"), "right", "left", "catheter", "right", 3)
    words = describe(chest)
    assert 0.57 < words.pop("cardiothoracic_ratio") < 0.66
    assert words == {
        "is_abnormal": True,
        "heart": "enlarged",
        "opacity": "left lower",
        "effusion": "right",
        "pneumothorax": "left",
        "device": "catheter right",
    }
