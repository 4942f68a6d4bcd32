"""No group on both sides, whatever the data; proportions kept; the seed decides, and nothing else does."""

import math
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.division import fold_of_rows, shot_order, split_by_group
from vglm.data.grouping import find_groups, find_strata, merge_groups
from vglm.data.ids import group_name, ids_in
from vglm.data.outline import Outline
from vglm.data.sample import Sample, Turn
from vglm.data.splits import describe_split, find_leakage, fingerprint
from vglm.errors import ConfigError, DataError

GROUPS = st.lists(st.sampled_from([f"study {i}" for i in range(12)]), min_size=1, max_size=60)
FRACTIONS = st.sampled_from(
    [{"train": 0.8, "validation": 0.1, "test": 0.1}, {"train": 0.5, "test": 0.5}, {"train": 0.7, "test": 0.3}]
)


def sample(id: str, *, image: str | None = None, answer: str = "yes", **others: Any) -> Sample:
    return builders.sample(id, image=None if image is None else Path(image), answer=answer, **others)


# --- dividing ---------------------------------------------------------------------------------------------------------


@given(GROUPS, FRACTIONS, st.integers(0, 5))
def test_a_split_is_of_whole_groups_and_near_its_share(
    groups: list[str], fractions: dict[str, float], seed: int
) -> None:
    if len(set(groups)) < len(fractions):
        with pytest.raises(DataError, match=r"groups cannot be divided into"):
            split_by_group(groups, fractions, seed=seed)
        return
    splits = split_by_group(groups, fractions, seed=seed)
    assert sorted(row for rows in splits.values() for row in rows) == list(range(len(groups)))
    for one, other in product(splits, splits):  # the brute-force twin of "no group crosses"
        if one != other:
            assert not {groups[row] for row in splits[one]} & {groups[row] for row in splits[other]}
    largest = max(Counter(groups).values())
    for name, rows in splits.items():
        assert rows
        assert len(rows) <= fractions[name] * len(groups) + largest


@given(GROUPS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(groups: list[str], seed: int, random: object) -> None:
    if len(set(groups)) < 2:
        return
    shuffled = list(groups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    fractions = {"train": 0.6, "test": 0.4}
    first, second = split_by_group(groups, fractions, seed=seed), split_by_group(shuffled, fractions, seed=seed)
    assert {groups[row] for row in first["test"]} == {shuffled[row] for row in second["test"]}


def test_each_stratum_is_divided_in_proportion() -> None:
    rows = [
        (f"{label}{number}", label) for label, count in (("a", 500), ("b", 100), ("c", 40)) for number in range(count)
    ]
    groups, strata = [group for group, _ in rows], [label for _, label in rows]
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    for seed in range(5):
        splits = split_by_group(groups, fractions, strata=strata, seed=seed)
        for name, share in fractions.items():
            counts = Counter(strata[row] for row in splits[name])
            for label, total in Counter(strata).items():
                assert abs(counts[label] - share * total) <= 2, (seed, name, label)
            assert abs(len(splits[name]) - share * len(rows)) <= 1


def test_the_seed_divides_anew() -> None:
    groups = [str(number) for number in range(40)]
    tests = {tuple(split_by_group(groups, {"train": 0.8, "test": 0.2}, seed=seed)["test"]) for seed in range(6)}
    assert len(tests) == 6
    assert all(len(test) == 8 for test in tests)


def test_a_known_division() -> None:  # a change here means that old runs can no longer be repeated
    groups = [str(number) for number in range(12)]
    assert split_by_group(groups, {"train": 0.5, "validation": 0.25, "test": 0.25}, seed=1) == {
        "train": [1, 2, 3, 5, 7, 11],
        "validation": [0, 4, 8],
        "test": [6, 9, 10],
    }


@pytest.mark.parametrize("fractions", [{"train": 0.8, "test": 0.1}, {"train": 1.2, "test": -0.2}])
def test_fractions_that_cannot_be(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.division\.fractions must be at least 0 and sum to 1, got"):
        split_by_group(["a", "b", "c"], fractions)


@given(GROUPS, st.integers(2, 6), st.integers(0, 3))
def test_folds_hold_every_row_once_and_whole_groups(groups: list[str], folds: int, seed: int) -> None:
    count = len(set(groups))
    if count < folds:
        with pytest.raises(DataError):
            fold_of_rows(groups, folds, seed=seed)
        return
    numbers = fold_of_rows(groups, folds, seed=seed)
    assert set(numbers) == set(range(folds))
    assert len(set(zip(groups, numbers, strict=True))) == count
    largest = max(Counter(groups).values())
    assert max(Counter(numbers).values()) <= len(groups) / folds + largest


@given(GROUPS)
def test_leave_one_out_holds_out_each_group_once(groups: list[str]) -> None:
    if len(set(groups)) == 1:
        with pytest.raises(DataError, match="leave_one_out needs at least 2 groups, found 1"):
            fold_of_rows(groups, None)
        return
    numbers = fold_of_rows(groups, None)
    assert sorted(set(numbers)) == list(range(len(set(groups))))
    assert len(set(zip(groups, numbers, strict=True))) == len(set(groups))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(0, 4))
def test_shots_are_nested_and_balanced(strata: list[str], seed: int) -> None:
    ids = [f"row {number}" for number in range(len(strata))]
    order = shot_order(ids, strata=strata, seed=seed)
    assert sorted(order) == list(range(len(ids)))
    available = Counter(strata)
    for shots in range(1, len(order) + 1):
        taken = Counter(strata[row] for row in order[:shots])
        most = max(taken.values())
        for label in available:  # a class has fewer than the fullest only if it is its turn next, or used up
            assert taken[label] >= min(available[label], most - 1)


def test_shots_depend_on_names_and_seed_alone() -> None:
    ids = [f"row {number}" for number in range(30)]
    forward = [ids[row] for row in shot_order(ids, seed=3)]
    backward = [ids[::-1][row] for row in shot_order(ids[::-1], seed=3)]
    assert forward == backward
    assert forward != [ids[row] for row in shot_order(ids, seed=4)]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["p", "q", "r", None])), max_size=20))
def test_merged_groups_are_connected_components(rows: list[tuple[str, str | None]]) -> None:
    groups = [group for group, _ in rows]
    merged = merge_groups(groups, [picture for _, picture in rows])
    together = {(i, j) for i in range(len(rows)) for j in range(len(rows)) if groups[i] == groups[j]}
    together |= {
        (i, j)
        for i in range(len(rows))
        for j in range(len(rows))
        if rows[i][1] is not None and rows[i][1] == rows[j][1]
    }
    while more := {(i, k) for i, j in together for j_, k in together if j == j_} - together:  # Warshall, the slow way
        together |= more
    assert {(i, j) for i in range(len(rows)) for j in range(len(rows)) if merged[i] == merged[j]} == together


# --- what belongs together --------------------------------------------------------------------------------------------


def groups_of(outline: Outline, rule: str | None = None) -> tuple[list[str], str]:
    """What `find_groups` decides, with the groups as a list."""
    groups, source = find_groups(outline, rule)
    return list(groups), source


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["2_1.png", "2_2.png", "861_1.png"], ["2", "2", "861"]),  # OpenI as in XrayGLM
        (
            ["CXR2384_IM-0942-1001.png", "CXR2384_IM-0942-2001.png", "CXR1_1_IM-0001-3001.png"],
            ["CXR2384"] * 2 + ["CXR1"],
        ),
        (["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"], ["1", "1"]),  # the collection as on Kaggle
    ],
)
def test_views_of_a_study_are_recognised(names: list[str], expected: list[str]) -> None:
    outline = Outline.of(sample(f"x#{i}", group=Path(name).stem, image=f"/data/{name}") for i, name in enumerate(names))
    assert groups_of(outline) == (expected, "inferred from the pictures' names: the part before _")
    assert groups_of(outline, "reader")[0] == [Path(name).stem for name in names]
    assert groups_of(outline, "picture")[0] == [f"/data/{name}" for name in names]


@pytest.mark.parametrize(
    "names", [["train_003.png", "train_004.png"], ["IMG_2031.jpg"], ["20230412_101530.jpg"], ["a.png"]]
)
def test_other_names_are_left_alone(names: list[str]) -> None:
    outline = Outline.of(sample(f"x#{i}", group=name, image=f"images/{name}") for i, name in enumerate(names))
    assert groups_of(outline) == (names, "as the file says")


def test_a_reader_that_knows_the_study_is_believed() -> None:
    outline = Outline.of([sample("x#1", group="patient 7", image="2_1.png"), sample("x#2", group="9", image="2_2.png")])
    assert groups_of(outline)[0] == ["patient 7", "9"]


def test_a_group_can_be_a_field_or_an_expression() -> None:
    samples = [sample("x#1", image="p/A-7-left.png", star="V1"), sample("x#2", image="p/A-8.png", star="V2")]
    outline = Outline.of(samples, "star", "field")
    assert groups_of(outline, "star") == (["V1", "V2"], "the field 'star'")
    assert groups_of(outline, r"-(\d+)")[0] == ["7", "8"]
    with pytest.raises(
        DataError, match=r"(?s)expected a field 'field' in every row; 2 of 2 have none:\n  x#1: found None"
    ):
        groups_of(outline, "field")
    with pytest.raises(DataError, match=r"1 of 2 have none:\n  x#2: found 'A-8'"):
        groups_of(outline, "(left)")
    with pytest.raises(ConfigError, match="no regular expression"):
        groups_of(outline, "(")
    with pytest.raises(ConfigError, match="has no group"):
        groups_of(outline, r"\(")


def test_strata_are_classes_where_there_are_some() -> None:
    classes = Outline.of([sample(f"x#{i}", answer="ab"[i % 2]) for i in range(4)], "kind")
    strata, source = find_strata(classes)
    assert (strata is not None and len(set(strata)), source) == (2, "the answer")
    reports = Outline.of([sample(f"x#{i}", answer=f"report {i}", kind="xy"[i % 2]) for i in range(4)], "kind", "ward")
    strata, source = find_strata(reports)
    assert (strata and list(strata), source) == (["x", "y", "x", "y"], "the field 'kind'")
    assert find_strata(reports, "none") == (None, "nothing")
    with pytest.raises(DataError, match="no row has a field 'ward'"):
        find_strata(reports, "ward")


# --- leakage ----------------------------------------------------------------------------------------------------------


def test_leakage_by_group_by_path_and_by_content() -> None:
    train = Outline.of([sample("a#1", group="2", image="2_1.png"), sample("a#2", group="x.png", image="x.png")])
    by_group = find_leakage(
        Outline.of([sample("b#1", group="2", image="2_2.png"), sample("b#2", group="3", image="3_1.png")]),
        train,
        names=("test", "train"),
    )
    assert by_group is not None
    assert (by_group.samples, by_group.groups, by_group.pictures, by_group.example) == (1, 1, 0, "b#1")
    copy = Outline.of([sample("b#1", group="y.png", image="y.png")])
    assert find_leakage(copy, train, names=("test", "train")) is None
    by_content = find_leakage(copy, train, names=("test", "train"), contents={"x.png": "1f", "y.png": "1f"})
    assert by_content is not None
    assert str(by_content) == ("1 test samples are not independent of train: 1 pictures are in both (first: b#1)")


def test_equal_names_in_two_folders_are_two_pictures() -> None:
    train, test = (
        Outline.of([sample(f"{name}#1", group="a.png", image=f"{name}/a.png")]) for name in ("train", "test")
    )
    assert find_leakage(test, train, names=("test", "train")) is None


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_every_word_and_not_of_the_place() -> None:
    one = fingerprint([sample("a#1", image="/here/a.png")])
    assert fingerprint([sample("a#1", image="/there/a.png")]) == one
    others = [
        sample("a#2", group="a#1", image="/here/a.png"),
        sample("a#1", image="/here/b.png"),
        sample("a#1", image="/here/a.png", answer="no"),
        sample("a#1", group="b", image="/here/a.png"),
    ]
    assert len({one, *(fingerprint([other]) for other in others)}) == 5


def test_a_split_is_described_by_its_ids_and_groups() -> None:
    described = describe_split([sample("a#1", group="g"), sample("a#2", group="g"), sample("a#3", group="h")])
    assert described.pop("sha256") == fingerprint(
        [sample("a#1", group="g"), sample("a#2", group="g"), sample("a#3", group="h")]
    )
    assert described == {"samples": 3, "groups": 2, "ids": ["a#1", "a#2", "a#3"], "group_names": ["g", "h"]}


# --- ids of patients and studies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7", "7.0", "７", "\ufeff7 "])
def test_an_id_has_one_form(value: object) -> None:
    assert group_name(value) == "7"


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, True, "", " ", "NaN", "None", "null", "<NA>", [7], {"a": 7}]
)
def test_nothing_is_no_id(value: object) -> None:
    assert group_name(value) is None


NAMES = ["patient_id", "PatientID", "patientId", "Patient ID", "subject_id", "deid_patient_id", "患者编号"]
STUDIES = ["study_id", "StudyID", "StudyInstanceUID", "study"]


@pytest.mark.parametrize("name", [*NAMES, *STUDIES])
def test_usual_names_of_ids(name: str) -> None:
    assert [named_id.name for named_id in ids_in({"note": "x", name: 7.0, "subject": "social science"})] == ["7"]


def outline_of(*rows: tuple[str | None, dict[str, object]]) -> Outline:
    """Rows of (picture, metadata) as a reader of tables makes them."""
    samples = []
    for number, (picture, meta) in enumerate(rows):
        group = next((named_id.name for named_id in ids_in(meta)), picture or f"#{number}")
        image = None if picture is None else Path("/data") / picture
        samples.append(Sample(f"#{number}", group, image, (Turn("?", "!"),), meta=meta))
    return Outline.of(samples)


def test_rows_without_a_patient_follow_their_study(caplog: pytest.LogCaptureFixture) -> None:
    rows = outline_of(
        ("a.png", {"patient_id": 7.0, "study_id": "s1"}),
        ("b.png", {"patient_id": math.nan, "study_id": "s1"}),  # of patient 7, for the study is
        ("c.png", {"patient_id": None, "study_id": "7"}),  # a study of that number is not the patient
        ("d.png", {"patient_id": "7"}),
        ("e.png", {"patient_id": ""}),
        (None, {"patient_id": 8, "study_id": "s3"}),
    )
    groups, source = groups_of(rows)
    assert groups == ["7", "7", "study_id 7", "7", "e.png", "8"]
    assert source == "patient_id"
    assert "2 of 6 rows have no id in patient_id, and the others do (first: #2)" in caplog.text


def test_studies_that_are_counted_anew_for_each_patient_join_nobody() -> None:
    rows = outline_of(
        ("a.png", {"patient_id": 7, "study": 1}),
        ("b.png", {"patient_id": 8, "study": 1}),
        ("c.png", {"patient_id": None, "study": 1}),
    )
    assert groups_of(rows)[0] == ["7", "8", "#2"]


def test_folders_name_patients_and_studies() -> None:
    names = ["train/patient00001/study1/a.png", "valid/patient00001/study2/a.png", "train/patient00002/study1/a.png"]
    assert groups_of(outline_of(*((name, {}) for name in names))) == (
        ["patient00001", "patient00001", "patient00002"],
        "the pictures' names",
    )
    assert groups_of(outline_of(("p10/p10000032/s50414267/a.jpg", {}), ("p11/p11000000/s5/a.jpg", {})))[0] == [
        "p10000032", "p11000000",
    ]  # fmt: skip
    studies = outline_of(*((f"x/study{study}/{view}.png", {}) for study, view in ((1, "a"), (1, "b"), (2, "a"))))
    assert groups_of(studies)[0] == ["study1", "study1", "study2"]
    files = outline_of(("person1_virus_1.png", {}), ("person1_virus_2.png", {}), ("person2_virus_1.png", {}))
    assert groups_of(files)[0] == ["person1", "person1", "person2"]
    assert groups_of(outline_of(("patient1/a.png", {}), ("patient1/b.png", {})))[0] == [
        "patient1/a.png",
        "patient1/b.png",
    ]


def test_a_folder_stands_in_for_a_patient_that_is_missing_in_the_row() -> None:
    rows = outline_of(
        ("patient1/a.png", {"patient_id": 4}), ("patient1/b.png", {}), ("patient2/a.png", {}), ("patient3/a.png", {})
    )
    assert groups_of(rows)[0] == ["4", "4", "patient2", "patient3"]


def test_an_expression_sees_the_folders_where_the_names_do_not_match() -> None:
    rows = outline_of(("patient1/view1.png", {}), ("patient2/view1.png", {}))
    assert groups_of(rows, r"(patient\d+)")[0] == ["patient1", "patient2"]
    assert groups_of(rows, r"view(\d)")[0] == ["1", "1"]


def test_a_field_that_is_named_has_one_form_too() -> None:
    assert groups_of(Outline.of([sample("a", p=7.0), sample("b", p=" 7")], "p"), "p")[0] == ["7", "7"]
    with pytest.raises(DataError, match=r"1 of 2 have none"):
        groups_of(Outline.of([sample("a", p=math.nan), sample("b", p=" 7")], "p"), "p")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3]), st.booleans(), st.sampled_from([str, int, float, lambda number: f" {number}"])
        ),
        min_size=2,
        max_size=12,
    )
)
def test_no_patient_has_two_groups_where_studies_tell(rows: list[tuple[int, bool, Any]]) -> None:
    with_studies = {patient for patient, has_id, _ in rows if has_id}
    outline = outline_of(
        *(
            (f"{row}.png", {"patient_id": form(patient) if has_id else None, "study_id": f"s{patient}"})
            for row, (patient, has_id, form) in enumerate(rows)
        )
    )
    groups = groups_of(outline)[0]
    for patient in with_studies:
        assert {group for group, row in zip(groups, rows, strict=True) if row[0] == patient} == {str(patient)}
