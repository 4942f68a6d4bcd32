import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import LONGEST_MESSAGE, DataError
from vglm.evaluation.predictions import (
    Arm,
    Evaluation,
    Prediction,
    Stamp,
    append_predictions,
    merge_parts,
    part_file,
    read_arms,
    read_evaluation,
    read_predictions,
    recover_parts,
    recover_predictions,
    write_evaluation,
    write_predictions,
)
from vglm.evaluation.seals import write_seals
from vglm.files import resumable_folder

RECORD = Prediction(
    id="test.json#3",
    group="star 7",
    split="test",
    kind="background",
    language="zh",
    question="这张图片的背景里有什么内容？",
    history=(("图中有几个人？", "三个人。"),),
    reference="这张图片的背景是金色的沙滩。",
    prediction='line one\nline \u2028 two \x00 \\ " <b>',
    image="images/3.png",
    image_sha256="ab" * 32,
    meta={"place": "beach", "flipped": True, "stars": 3},
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_records_without_a_finish_are_read(tmp_path: Path) -> None:
    write_predictions([replace(RECORD, finish="length")], tmp_path / "new.jsonl")
    (record,) = read_predictions(tmp_path / "new.jsonl")
    assert record.is_cut
    values = json.loads((tmp_path / "new.jsonl").read_text(encoding="utf-8"))
    del values["finish"]
    (tmp_path / "old.jsonl").write_text(json.dumps(values), encoding="utf-8")
    (record,) = read_predictions(tmp_path / "old.jsonl")
    assert (record.finish, record.is_cut) == (None, False)


@given(prediction=TEXT, reference=TEXT, history=st.lists(st.tuples(TEXT, TEXT), max_size=2), error=st.none() | TEXT)
def test_records_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    prediction: str,
    reference: str,
    history: list[tuple[str, str]],
    error: str | None,
) -> None:
    path = tmp_path_factory.mktemp("records") / "arm" / "predictions.jsonl"
    records = [
        RECORD,
        replace(RECORD, id="x", prediction=prediction, reference=reference, history=tuple(history), error=error),
    ]
    write_predictions(records, path)
    assert read_predictions(path) == records
    assert [file.name for file in path.parent.iterdir()] == ["predictions.jsonl"]


EVALUATION = Evaluation(
    title="background/lora",
    summary="Tuned.",
    purpose="tuning",
    baseline=Arm(label="before", meaning="adapter off"),
    candidate=Arm(label="after", meaning="adapter on"),
    facts={"seed": "1"},
    decoding={"max_new_tokens": 48, "do_sample": False},
    command="python evaluate.py run=latest",
    versions={"torch": "2"},
    config="seed: 1\n",
    created="2026-01-01T00:00:00+00:00",
    stamps=(Stamp(text="EVALUATED ON TRAINING IMAGES", detail="20 of 20"),),
)


def test_a_record_is_one_line_of_plain_json(tmp_path: Path) -> None:
    write_predictions([RECORD], tmp_path / "predictions.jsonl")
    text = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert "这张图片的背景是金色的沙滩。" in text
    assert list(json.loads(text)) == [
        "id", "group", "split", "kind", "language", "question", "history", "reference", "prediction", "image",
        "image_sha256", "error", "meta", "draw", "likelihoods", "finish", "tokens",
    ]  # fmt: skip


@pytest.mark.parametrize(("english", "language"), [(True, "en"), (False, "zh")])
def test_records_of_earlier_versions_say_whether_the_prompt_is_english(
    english: bool, language: str, tmp_path: Path
) -> None:
    older = {"english" if name == "language" else name: value for name, value in asdict(RECORD).items()}
    (tmp_path / "p.jsonl").write_text(json.dumps(older | {"english": english}), encoding="utf-8")
    (record,) = read_predictions(tmp_path / "p.jsonl")
    assert record == replace(RECORD, language=language)


def test_all_bad_lines_are_named(tmp_path: Path) -> None:
    good = asdict(RECORD)
    lines = [
        json.dumps(good),
        "{broken",
        "[1]",
        json.dumps({key: value for key, value in good.items() if key != "reference"}),
        json.dumps(good | {"id": "b", "score": 1}),
        json.dumps(good | {"id": "c", "prediction": None}),
        json.dumps(good | {"id": "d", "language": "no"}),
        json.dumps(good | {"id": "e", "history": [["only a question"]]}),
        json.dumps(good | {"id": "f", "draw": "first"}),
        json.dumps(good | {"id": "g", "likelihoods": {"yes": "very"}}),
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_predictions(tmp_path / "p.jsonl")
    message = str(caught.value)
    assert "p.jsonl: 9 of 10 lines are no prediction records" in message
    assert "line 2:" in message
    assert "line 3: expected an object, found list" in message
    assert "line 4: lacks reference" in message
    assert "line 5: has unknown score" in message
    assert "line 6: prediction must be text, found NoneType" in message
    assert "and 4 more" in message


def test_records_from_before_there_was_metadata_are_read_and_other_things_are_not(tmp_path: Path) -> None:
    values = asdict(RECORD)
    del values["meta"]
    (tmp_path / "p.jsonl").write_text(json.dumps(values), encoding="utf-8")
    assert read_predictions(tmp_path / "p.jsonl") == [replace(RECORD, meta={})]
    (tmp_path / "p.jsonl").write_text(json.dumps(values | {"meta": {"place": ["beach"]}}), encoding="utf-8")
    with pytest.raises(DataError, match="line 1: meta must be an object"):
        read_predictions(tmp_path / "p.jsonl")


def test_an_id_twice_is_an_error_but_splits_have_their_own_ids(tmp_path: Path) -> None:
    write_predictions([RECORD, replace(RECORD, split="retention")], tmp_path / "p.jsonl")
    assert len(read_predictions(tmp_path / "p.jsonl")) == 2
    write_predictions([RECORD, RECORD], tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"line 2: id 'test.json#3' appears twice in split 'test'"):
        read_predictions(tmp_path / "p.jsonl")
    write_predictions([replace(RECORD, draw=draw) for draw in (0, 1, 1)], tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"line 3: id 'test.json#3' appears twice in split 'test' as draw 1"):
        read_predictions(tmp_path / "p.jsonl")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"before/predictions\.jsonl does not exist"):
        read_predictions(tmp_path / "before" / "predictions.jsonl")
    with pytest.raises(DataError, match=r"has no evaluation\.json"):
        read_evaluation(tmp_path)


def test_the_description_survives_the_file(tmp_path: Path) -> None:
    evaluation = replace(EVALUATION, sealed=write_seals(tmp_path))
    write_evaluation(evaluation, tmp_path)
    assert read_evaluation(tmp_path) == evaluation
    with_controls = replace(evaluation, controls=(Arm(label="after-blank", meaning="after, each image blank"),))
    write_evaluation(with_controls, tmp_path)
    assert read_evaluation(tmp_path) == with_controls
    (tmp_path / "evaluation.json").write_text('{"title": "half"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"evaluation\.json is not an evaluation's description"):
        read_evaluation(tmp_path)


def test_a_description_from_before_there_were_controls_is_read(tmp_path: Path) -> None:
    arm = {"label": "before", "meaning": ""}
    texts = {"title": "t", "summary": "s", "purpose": "tuning", "command": "c", "config": "", "created": "now"}
    values = {**texts, "baseline": arm, "candidate": arm, "facts": {}, "decoding": {}, "versions": {}, "stamps": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(values), encoding="utf-8")
    assert read_evaluation(tmp_path).controls == ()


@given(cut=st.integers(0, 400))
def test_records_before_a_cut_are_recovered(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("records") / "arm" / "predictions.jsonl"
    assert recover_predictions(path) == []
    records = [replace(RECORD, id=name) for name in "abc"]
    append_predictions(records[:2], path)
    append_predictions(records[2:], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = path.read_bytes().count(b"\n")
    assert recover_predictions(path) == records[:left]
    append_predictions(records[left:], path)
    assert path.read_bytes() == whole


def test_work_is_taken_up_by_the_same_key_only_and_gone_when_done(tmp_path: Path) -> None:
    target = tmp_path / "evaluation"

    def stop(key: str, *, writes: bool = True) -> list[str]:
        with pytest.raises(KeyboardInterrupt), resumable_folder(target, marker="done", key=key) as folder:  # noqa: PT012
            names = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
            if writes:
                append_predictions([RECORD], folder / f"{key}.jsonl")
            raise KeyboardInterrupt
        return names

    assert stop("a") == []
    assert stop("b", writes=False) == []
    assert len(list(tmp_path.iterdir())) == 1  # b had nothing to keep
    assert stop("b") == []
    assert stop("a") == ["a.jsonl"]
    with resumable_folder(target, marker="done", key="a") as folder:
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "a.jsonl"]
        (folder / "done").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    assert sorted(path.name for path in target.iterdir()) == ["a.jsonl", "done"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with (
        pytest.raises(DataError, match="holds other files"),
        resumable_folder(tmp_path / "other", marker="done", key="a"),
    ):
        pass


def test_a_folder_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "evaluation"
    script = (
        "import sys, time; from pathlib import Path; from vglm.files import resumable_folder\n"
        "with resumable_folder(Path(sys.argv[1]), marker='done', key='a') as folder:\n"
        "    (folder / 'p.jsonl').touch(); print('made', flush=True); time.sleep(60)"
    )
    source = os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(target)],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "made\n"
        with (
            pytest.raises(DataError, match=r"evaluation is being made by another process right now"),
            resumable_folder(target, marker="done", key="a"),
        ):
            pass
        with resumable_folder(target, marker="done", key="b") as folder:  # other settings
            (folder / "done").touch()
        assert len(list(tmp_path.glob(".evaluation.*.work/p.jsonl"))) == 1  # of the other process, left alone
    finally:
        other.kill()
        other.communicate()
    with resumable_folder(target, marker="done", key="a") as folder:  # the lock is gone with its process
        (folder / "done").touch()
    assert sorted(path.name for path in target.iterdir()) == ["done", "p.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]


def test_parts_of_several_processes_become_one_file(tmp_path: Path) -> None:
    path = tmp_path / "after" / "predictions.jsonl"
    assert recover_parts(path) == {}
    records = [replace(RECORD, id=name, draw=draw) for name in "abc" for draw in range(2)]
    append_predictions(records[4:1:-1], part_file(path, 1))
    append_predictions([records[0], records[5]], part_file(path, 11))
    with part_file(path, 1).open("a", encoding="utf-8") as file:
        file.write('{"id": "cut o')
    recovered = recover_parts(path)
    assert recovered == {record.key: record for record in records if record != records[1]}
    merge_parts(recovered.values(), path)
    assert [file.name for file in path.parent.iterdir()] == ["predictions.jsonl"]
    assert recover_parts(path) == recovered


@pytest.mark.parametrize(
    "values",
    [
        {"image_sha256": "../../secret"},
        {"image_sha256": "AB" * 32},
        {"image_sha256": f"{'ab' * 32}\n"},
        {"image_sha256": 5},
        {"draw": -1},
        {"draw": True},
        {"likelihoods": {"yes": True}},
        {"likelihoods": {"yes": 10**400}},
        {"history": [["question", 5]]},
        {"history": ["ab"]},
        {"question": "\ud800"},
        {"meta": {"a": None}},
    ],
    ids=str,
)
def test_values_of_records_that_cannot_be_are_refused(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(asdict(RECORD) | values))
    with pytest.raises(DataError, match=r"p\.jsonl: 1 of 1 lines are no prediction records") as caught:
        read_predictions(tmp_path / "p.jsonl")
    assert len(str(caught.value)) < LONGEST_MESSAGE


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"' + b"x" * 100_000 + b'": 1}', b"9" * 5000])
def test_damaged_records_are_one_short_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.jsonl") as caught:
        read_predictions(tmp_path / "p.jsonl")
    assert len(str(caught.value)) < LONGEST_MESSAGE


LABELS = ["../victim/after", "/etc", "..", ".", "", "a/b", "a\0b", "after\n", ".hidden", "x" * 200, "a\\b", "<b>"]


@pytest.mark.parametrize("label", LABELS, ids=repr)
@pytest.mark.parametrize("arm", ["baseline", "candidate", "controls"])
def test_labels_that_are_no_names_of_folders_are_refused(tmp_path: Path, arm: str, label: str) -> None:
    values = asdict(EVALUATION)
    values[arm] = {"label": label, "meaning": ""}
    values[arm] = [values[arm]] if arm == "controls" else values[arm]
    (tmp_path / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="is no label of an arm") as caught:
        read_evaluation(tmp_path)
    assert len(str(caught.value)) < LONGEST_MESSAGE


def test_an_arm_that_leads_elsewhere_is_not_read(tmp_path: Path) -> None:
    write_predictions([RECORD], tmp_path / "victim" / "after" / "predictions.jsonl")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "after").symlink_to(tmp_path / "victim" / "after")
    with pytest.raises(DataError, match=r"'after/predictions\.jsonl' leads out of this folder"):
        read_arms(tmp_path / "evaluation")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_any_value_anywhere_in_a_description_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("evaluation")
    key = data.draw(st.sampled_from(sorted(asdict(EVALUATION))))
    values = asdict(EVALUATION) | {key: data.draw(_JSON)}
    (folder / "evaluation.json").write_text(json.dumps(values))
    message = ""
    try:
        read_evaluation(folder)
    except DataError as error:
        message = str(error)
    assert len(message) < LONGEST_MESSAGE
    assert "evaluation.json" in message or not message
