import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import question_about
from PIL import Image

from vglm.data.images import image_sha256, open_image
from vglm.data.sample import Sample
from vglm.errors import ConfigError
from vglm.evaluation.predict import generation
from vglm.evaluation.predict.decoding import Decoding, Sampling
from vglm.evaluation.predict.generation import answer_splits, check_precision, generate_predictions, precision_of
from vglm.evaluation.predictions import append_predictions, part_file, read_predictions, write_predictions
from vglm.model.loading import load_pretrained
from vglm.processes import Processes


@pytest.fixture(scope="module")
def loaded(reference: Path) -> tuple[Any, Any]:
    return load_pretrained(reference / "hf_layout", dtype="float32")


@pytest.fixture
def samples(reference: Path) -> list[Sample]:
    """Different lengths, with and without image, history and English, from files and from memory."""
    pictures = sorted((reference / "images").glob("*.png"))
    return [
        question_about("zh", pictures[0], "这张图片的背景里有什么内容？", kind="background"),
        question_about("text", None, "你好"),
        question_about("en", pictures[1], "What is in the picture?", language="en"),
        question_about(
            "history", pictures[2], "它是什么颜色的？", history=(("描述这张图片。", "一片森林，还有一条小河。"),)
        ),
        question_about("memory", Image.new("RGB", (40, 20), "orange"), "图中有几个人？"),
    ]


def test_the_batch_size_changes_nothing(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    singles = generate_predictions(*loaded, samples, Decoding(batch_size=1, max_new_tokens=8))
    assert [record.id for record in singles] == ["zh", "text", "en", "history", "memory"]
    assert len({record.prediction for record in singles}) > 1
    for batch_size in (2, 3, 8):
        assert generate_predictions(*loaded, samples, Decoding(batch_size=batch_size, max_new_tokens=8)) == singles


def test_answers_are_what_generate_writes(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    model, processor = loaded
    inputs = processor(images=Image.open(samples[0].image), text=samples[0].question, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    record = generate_predictions(model, processor, samples[:1], Decoding(max_new_tokens=8))[0]
    assert record.prediction == processor.decode(ids[0])
    assert record.prediction


def test_a_record_tells_why_its_answer_ends(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    class Ending(Counting):
        """Ends the answers of all rows but the first after two tokens."""

        def generate(self, **inputs: Any) -> torch.Tensor:
            ids = self.model.generate(**inputs)
            ids[1:, inputs["input_ids"].shape[1] + 2] = loaded[1].tokenizer.eos_token_id
            return ids

    broken = Sample(id="broken", group="broken", image=Path("none.png"), turns=samples[0].turns)
    questions = [*samples[:3], broken]
    records = generate_predictions(Ending(loaded[0]), loaded[1], questions, Decoding(max_new_tokens=4))
    assert sorted(str(record.finish) for record in records) == ["None", "eos", "eos", "length"]
    assert [record.is_cut for record in records].count(True) == 1
    assert records[3].finish is None


def test_a_record_tells_where_it_comes_from(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    records = generate_predictions(
        *loaded, samples, Decoding(max_new_tokens=1), split="retention", images=tmp_path / "images"
    )
    first, text, _, history, memory = records
    assert (first.split, first.kind, first.reference, first.error) == ("retention", "background", "答案", None)
    assert first.image is not None
    assert first.image.endswith("images/img0.png")
    assert first.image_sha256 == image_sha256(samples[0].image)  # type: ignore[arg-type]
    assert (text.image, text.image_sha256) == (None, None)
    assert (memory.image, memory.image_sha256) == (None, image_sha256(samples[4].image))  # type: ignore[arg-type]
    assert history.history == (("描述这张图片。", "一片森林，还有一条小河。"),)
    copies = {path.stem: open_image(path) for path in (tmp_path / "images").iterdir()}
    assert set(copies) == {record.image_sha256 for record in records} - {None}
    assert all(max(copy.size) <= 224 for copy in copies.values())


def test_an_unreadable_image_is_a_record_and_not_the_end(
    loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    broken = [
        question_about("broken", tmp_path / "broken.png", "图中有几个人？"),
        question_about("absent", tmp_path / "no.png", "？"),
    ]
    records = generate_predictions(*loaded, [*broken, *samples], Decoding(batch_size=3, max_new_tokens=4))
    assert [record.error is not None for record in records] == [True, True] + [False] * 5
    assert "broken.png" in str(records[0].error)
    assert "no.png does not exist" in str(records[1].error)
    assert (records[0].prediction, records[0].image_sha256) == ("", None)
    assert records[2:] == generate_predictions(*loaded, samples, Decoding(max_new_tokens=4))


def test_draws_do_not_depend_on_the_batch(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    sampling = Sampling(temperature=1.0, draws=3)
    whole = generate_predictions(*loaded, samples, Decoding(batch_size=4, max_new_tokens=8, sampling=sampling))
    assert [(record.id, record.draw) for record in whole] == [
        (sample.id, draw) for sample in samples for draw in range(3)
    ]
    assert len({record.prediction for record in whole}) > 10  # of 15: it is no greedy model
    for batch_size in (1, 15):
        again = generate_predictions(
            *loaded, samples, Decoding(batch_size=batch_size, max_new_tokens=8, sampling=sampling)
        )
        assert again == whole
    alone = generate_predictions(*loaded, samples[3:], Decoding(max_new_tokens=8, sampling=Sampling(temperature=1.0)))
    assert alone == [record for record in whole if record.draw == 0][3:]
    other = Sampling(temperature=1.0, draws=3, seed=2)
    assert generate_predictions(*loaded, samples, Decoding(max_new_tokens=8, sampling=other)) != whole


def test_a_draw_is_the_likeliest_token_after_noise(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    """Token by token, without `generate`, its cache and its batches."""
    model, processor = loaded
    sample, sampling = samples[1], Sampling(temperature=0.8, top_k=50)
    record = generate_predictions(
        model, processor, [sample], Decoding(max_new_tokens=6, sampling=sampling), split="retention"
    )[0]
    inputs = processor(text=sample.question, return_tensors="pt")
    ids, noise = inputs["input_ids"], sampling.processors([("retention", sample.id, 0)])
    for _ in range(6):
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[:, -1].float()
        ids = torch.cat([ids, noise(ids, logits).argmax(-1, keepdim=True)], dim=1)
        if ids[0, -1] == processor.tokenizer.eos_token_id:
            break
    assert record.prediction == processor.decode(ids[0, inputs["input_ids"].shape[1] :].tolist())


def test_towards_temperature_0_draws_are_the_greedy_answers(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    greedy = generate_predictions(*loaded, samples, Decoding(max_new_tokens=8))
    cold = Sampling(temperature=1e-6, draws=2)
    records = generate_predictions(*loaded, samples, Decoding(max_new_tokens=8, sampling=cold))
    assert [record for record in records if record.draw == 0] == greedy
    assert [record.prediction for record in records if record.draw == 1] == [record.prediction for record in greedy]


def test_processes_divide_what_no_earlier_call_has_answered(
    loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three processes one after the other, none of which passes the barrier; one alone finds what they leave."""
    decoding = Decoding(max_new_tokens=4, sampling=Sampling(temperature=1.0, draws=2))
    splits = {"test": samples, "retention": samples[:2]}
    whole = answer_splits(*loaded, splits, tmp_path / "whole", "after", decoding)
    path = tmp_path / "parts" / "after" / "predictions.jsonl"
    append_predictions(whole[:3], part_file(path, 0))  # of an earlier call
    shared: list[Any] = []

    class OneOfThree(Processes):
        def __init__(self, rank: int) -> None:
            self.rank, self.world_size = rank, 3

        def broadcast(self, value: Any) -> Any:
            shared[:] = shared or [value]
            return shared[0]

        def barrier(self) -> None:
            raise KeyboardInterrupt

    for rank in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            answer_splits(*loaded, splits, path.parents[1], "after", decoding, processes=OneOfThree(rank))
    first, second = (read_predictions(part_file(path, rank)) for rank in (0, 1))
    assert first[:3] == whole[:3]
    assert {len(first[3:]), len(second)} <= {3, 4}  # of two samples each, one of which may lack one answer only
    assert len({record.key for record in [*first, *second]}) == len(first) + len(second)
    model = Counting(loaded[0])
    assert answer_splits(model, loaded[1], splits, path.parents[1], "after", decoding) == whole
    assert model.rows == 14 - len(first) - len(second)
    assert [file.name for file in path.parent.glob("predictions*")] == ["predictions.jsonl"]


class Counting:
    """Passes everything on to a model and counts the rows it is asked to continue."""

    def __init__(self, model: Any) -> None:
        self.model, self.rows, self.calls = model, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, **inputs: Any) -> torch.Tensor:
        self.rows += len(inputs["input_ids"])
        self.calls += 1
        answer: torch.Tensor = self.model.generate(**inputs)
        return answer


def test_finished_samples_are_not_asked_again(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    whole = answer_splits(
        *loaded, {"test": samples, "retention": samples[:2]}, tmp_path, "before", Decoding(max_new_tokens=8)
    )
    path = tmp_path / "before" / "predictions.jsonl"
    text = path.read_bytes()
    assert read_predictions(path) == whole
    lines = text.splitlines(keepends=True)
    path.write_bytes(lines[3] + lines[0] + lines[5] + lines[1][:-10])  # out of order, the last one cut off by a kill
    model = Counting(loaded[0])
    again = answer_splits(
        model,
        loaded[1],
        {"test": samples, "retention": samples[:2]},
        tmp_path,
        "before",
        Decoding(batch_size=2, max_new_tokens=8),
    )
    assert again == whole
    assert path.read_bytes() == text
    assert model.rows == 4  # of seven


def test_a_record_of_another_question_is_not_taken_for_an_answer(
    loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path
) -> None:
    records = generate_predictions(*loaded, samples[:2], Decoding(max_new_tokens=2))
    write_predictions([*records[:1], generation.replace(records[1], question="？", prediction="old")], tmp_path / "p")
    model = Counting(loaded[0])
    assert (
        generate_predictions(model, loaded[1], samples[:2], Decoding(max_new_tokens=2), records=tmp_path / "p")
        == records
    )
    assert model.rows == 1


def test_no_more_images_are_in_memory_than_a_batch_has(
    loaded: tuple[Any, Any], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Image.Image]] = []
    most = 0
    original = Sample.open_image

    def watched(sample: Sample) -> Image.Image | None:
        nonlocal most
        picture = original(sample)
        if picture is not None and isinstance(sample.image, Path):
            opened.append(weakref.ref(picture))
            most = max(most, sum(reference() is not None for reference in opened))
        return picture

    monkeypatch.setattr(Sample, "open_image", watched)
    rows = [generation.replace(samples[0], id=str(index)) for index in range(40)]
    generate_predictions(*loaded, rows, Decoding(batch_size=4, max_new_tokens=1))
    gc.collect()
    assert len(opened) == 40
    assert most <= 8  # a batch, and the one before it until it is replaced


def test_what_a_checkpoint_says_of_decoding_changes_nothing(reference: Path, samples: list[Sample]) -> None:
    plain = generate_predictions(
        *load_pretrained(reference / "hf_layout", dtype="float32"), samples, Decoding(max_new_tokens=8)
    )
    model, processor = load_pretrained(reference / "hf_layout", dtype="float32")
    model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1, num_beams=3, min_length=200)
    assert generate_predictions(model, processor, samples, Decoding(max_new_tokens=8)) == plain


def test_arms_of_different_precision_are_refused(loaded: tuple[Any, Any], reference: Path) -> None:
    first = check_precision(loaded[0], "before", {})
    assert first == precision_of(loaded[0]) == {"dtype": "float32"}
    assert check_precision(loaded[0], "after", first) == first
    half, _ = load_pretrained(reference / "hf_layout", dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"after in \{'dtype': 'bfloat16'\}, the arm before it in .*float32"):
        check_precision(half, "after", first)


def test_without_a_batch_size_as_many_are_answered_at_once_as_fit(
    loaded: tuple[Any, Any], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate_predictions(*loaded, samples, Decoding(batch_size=1, max_new_tokens=8))
    for rows, calls in ((2, 3), (64, 1)):
        monkeypatch.setattr(generation, "rows_that_fit", lambda *_, rows=rows: rows)
        model = Counting(loaded[0])
        assert generate_predictions(model, loaded[1], samples, Decoding(max_new_tokens=8)) == expected
        assert model.calls == calls
