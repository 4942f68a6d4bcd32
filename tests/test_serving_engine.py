"""The engine: the base stays the base, company changes no answer, rows come, stream, stop and go one by one."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.servers import moved_adapter
from vglm.config import repo_root
from vglm.errors import AdapterError, BusyError, ConfigError, WorkbenchError
from vglm.model.decoding import DecodingBatch, prefill, room_for
from vglm.model.loading import load_pretrained
from vglm.model.processing import AnswerDecoder
from vglm.serving.adapters import BASE, AdapterShelf
from vglm.serving.decoding import Decoder
from vglm.serving.engine import Engine, Question
from vglm.serving.sampling import Sampling, chinese_tokens, is_chinese
from vglm.tuning.methods import attach, save

PICTURE = Image.linear_gradient("L").convert("RGB")
METHODS = ["lora", "dora", "ia3", "components", "p_tuning_v2", "p_tuning", "prompt_tuning"]
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=12)
QUESTIONS = [
    Question("图中有什么？", PICTURE),
    Question("你好"),
    Question("图片的背景里有什么内容，是什么颜色？", PICTURE.rotate(90), history=[("你好", "你好。")]),
    Question("What is in the picture?", PICTURE.rotate(180), language="en"),
]


@pytest.fixture(scope="module")
def adapters(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each kind, moved away from where it starts."""
    return {
        method: moved_adapter(random_model_folder, tmp_path_factory.mktemp(method), method=method) for method in METHODS
    }


@pytest.fixture(scope="module")
def engine(random_model_folder: Path, adapters: dict[str, Path]) -> Iterator[Engine]:
    engine = Engine(*load_pretrained(random_model_folder), adapters=adapters)
    yield engine
    engine.close(cancel=True)


def _logits(call, base, processor) -> torch.Tensor:  # type: ignore[no-untyped-def]
    inputs = processor(images=[PICTURE, None], text=["图中有什么？", "你好"], return_tensors="pt")
    with torch.inference_mode():
        batch = prefill(call, base, inputs)
        first = batch.logits
        batch.step(base, [7, 8])
    return torch.stack((first, batch.logits))


def test_the_base_is_the_base_bit_for_bit_beside_every_kind_of_adapter(
    random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    fresh, processor = load_pretrained(random_model_folder)
    expected = _logits(fresh, fresh, processor)
    base, _ = load_pretrained(random_model_folder)
    shelf = AdapterShelf(base)
    for name, folder in adapters.items():
        shelf.add(name, folder)
    assert shelf.names == [BASE, *METHODS]
    for order in (METHODS, METHODS[::-1]):
        for name in order:
            with shelf.using(BASE) as call:
                assert torch.equal(_logits(call, base, processor), expected)
            with shelf.using(name) as call:
                assert not torch.allclose(_logits(call, base, processor), expected, atol=1e-3)
    with shelf.using(BASE) as call:
        assert torch.equal(_logits(call, base, processor), expected)


@pytest.mark.parametrize("method", METHODS)
def test_each_adapter_computes_what_it_computes_alone(
    method: str, random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    base, processor = load_pretrained(random_model_folder)
    shelf = AdapterShelf(base)
    for name, folder in adapters.items():
        shelf.add(name, folder)
    tuned, _ = load_pretrained(random_model_folder, adapter=adapters[method])
    inputs = processor(images=[PICTURE, None], text=["图中有什么？", "你好"], return_tensors="pt")
    with torch.inference_mode(), shelf.using(method) as call:
        batch = prefill(call, base, inputs)
        alone = tuned(**inputs, layout_ids=inputs["input_ids"], logits_to_keep=1).logits[:, -1]
    assert torch.equal(batch.logits, alone)


@pytest.mark.parametrize("method", [BASE, *METHODS])
def test_a_greedy_answer_is_that_of_generate(
    method: str, engine: Engine, random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    model, processor = load_pretrained(random_model_folder, adapter=adapters.get(method))
    for question in QUESTIONS:
        inputs = processor(
            images=[question.image],
            text=[question.text],
            history=[list(question.history)],
            language=question.language,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        expected = output[0, inputs["input_ids"].shape[1] :].tolist()
        eos = processor.tokenizer.eos_token_id
        answer = engine.ask(question, adapter=method, sampling=GREEDY).wait()
        assert answer.token_ids == [token for token in expected if token != eos]
        assert answer.text == processor.decode(expected)
        assert answer.finish_reason == ("stop" if eos in expected else "length")


def test_an_answer_with_a_seed_is_the_same_alone_and_in_company(engine: Engine) -> None:
    def drawn(seed: int) -> Sampling:
        return Sampling(seed=seed, temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=10 + seed % 7)

    requests = [(QUESTIONS[seed % 4], [BASE, *METHODS][seed % 3], drawn(seed)) for seed in range(32)]
    alone = [engine.ask(question, adapter=name, sampling=how).wait() for question, name, how in requests]
    together = [engine.ask(question, adapter=name, sampling=how) for question, name, how in requests]
    assert [answer.wait().token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert len({tuple(answer.token_ids) for answer in alone}) > 20  # so the seeds matter


class Watched(Decoder):
    """Counts the prompts that it reads and keeps the base's logits."""

    def __init__(self, shelf: AdapterShelf) -> None:
        super().__init__(shelf)
        self.prompts: list[int] = []
        self.base_logits: list[torch.Tensor] = []
        self.turns: list[str] = []

    def begin(self, name: str, inputs: Any, rows: Any) -> None:
        self.prompts.append(len(inputs["input_ids"]))
        super().begin(name, inputs, rows)

    def logits(self, name: str) -> torch.Tensor:
        logits = super().logits(name)
        self.turns.append(name)
        if name == BASE:
            self.base_logits.append(logits.clone())
        return logits


def _decoder(engine: Engine) -> Any:
    return engine._decoder


def test_the_prompt_of_several_answers_is_read_once(random_model_folder: Path) -> None:
    engine = Engine(*load_pretrained(random_model_folder), decoder=Watched)
    how = [Sampling(seed=seed, temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=9) for seed in range(3)]
    together = [answer.wait().token_ids for answer in engine.ask_all(QUESTIONS[0], samplings=how)]
    assert _decoder(engine).prompts == [1]
    assert together == [engine.ask(QUESTIONS[0], sampling=sampling).wait().token_ids for sampling in how]
    assert len(set(map(tuple, together))) == 3
    engine.close()


def test_a_picture_is_looked_at_once_and_again_by_adapters_that_see_it_otherwise(
    random_model_folder: Path, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, processor = load_pretrained(random_model_folder)
    tuned = attach(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["qkv"], init_lora_weights=False))
    sees = save(tuned, processor, tmp_path / "sees")
    engine = Engine(*load_pretrained(random_model_folder), adapters={"lora": adapters["lora"], "sees": sees})
    assert [engine.shelf.changes_vision(name) for name in engine.names] == [False, False, True]
    looks: list[int] = []
    look = engine.base.model.get_image_features
    monkeypatch.setattr(
        engine.base.model, "get_image_features", lambda pixels: (looks.append(len(pixels)), look(pixels))[1]
    )
    for name in (BASE, "lora", BASE):
        engine.ask(QUESTIONS[0], adapter=name, sampling=GREEDY).wait()
    assert looks == [1]
    answer = engine.ask(QUESTIONS[0], adapter="sees", sampling=GREEDY).wait()
    assert looks == [1, 1]
    alone = Engine(*load_pretrained(random_model_folder), adapters={"sees": sees})
    assert answer.token_ids == alone.ask(QUESTIONS[0], adapter="sees", sampling=GREEDY).wait().token_ids
    monkeypatch.setattr("vglm.serving.decoding.PICTURE_BYTES", 1)
    engine.ask(QUESTIONS[2], sampling=GREEDY).wait()
    assert not _decoder(engine)._pictures
    for opened in (engine, alone):
        opened.close()


def test_what_was_made_of_pictures_is_kept_within_its_bound(
    random_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, processor = load_pretrained(random_model_folder)
    pictures = [PICTURE.rotate(angle) for angle in (0, 90, 180, 270)]
    pixels = processor(images=pictures, text=["你好"] * 4, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = base.get_image_features(pixels)
        monkeypatch.setattr("vglm.serving.decoding.PICTURE_BYTES", 2 * features[0].nbytes)
        decoder = Decoder(AdapterShelf(base))
        assert torch.equal(decoder._look(pixels), features)
        storages = [picture.untyped_storage() for picture in decoder._pictures.values()]
        assert sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()) == 2 * features[0].nbytes
        monkeypatch.setattr(base.model, "get_image_features", None)  # those that are kept are not looked at again
        assert torch.equal(decoder._look(pixels[2:]), features[2:])


def test_pictures_of_any_type_and_layout_are_told_apart_by_their_values(random_model_folder: Path) -> None:
    base, processor = load_pretrained(random_model_folder)
    base.to(torch.bfloat16)
    pictures = [PICTURE, PICTURE.rotate(90)]
    pixels = processor(images=pictures, text=["你好"] * 2, return_tensors="pt")["pixel_values"].to(torch.bfloat16)
    decoder = Decoder(AdapterShelf(base))
    with torch.no_grad():
        features = decoder._look(pixels)
        transposed = pixels.mT.contiguous().mT.requires_grad_()
        assert torch.equal(decoder._look(transposed.flip(0)), features.flip(0))
    assert len(decoder._pictures) == 2


@pytest.mark.parametrize("order", [(BASE, "lora"), ("lora", BASE)])
def test_a_base_in_4_bits_is_the_base_while_an_adapter_answers_beside_it(
    random_model_folder: Path, adapters: dict[str, Path], order: tuple[str, str]
) -> None:
    long = Sampling(temperature=0.0, min_new_tokens=24, max_new_tokens=24)
    fresh = Engine(*load_pretrained(random_model_folder, quantization="nf4"), decoder=Watched)
    fresh.ask(QUESTIONS[0], sampling=long).wait()
    fresh.close()
    both = Engine(
        *load_pretrained(random_model_folder, quantization="nf4"), adapters={"lora": adapters["lora"]}, decoder=Watched
    )
    first, second = (both.ask(QUESTIONS[0], adapter=name, sampling=long) for name in order)
    assert first.wait().token_ids != second.wait().token_ids
    both.close()
    assert {tuple(_decoder(both).turns[turn : turn + 2]) for turn in (10, 20, 30)} <= {order, order[::-1]}
    assert len(_decoder(fresh).base_logits) == len(_decoder(both).base_logits) == 24
    assert all(map(torch.equal, _decoder(fresh).base_logits, _decoder(both).base_logits))


def test_a_loop_is_woken_once_a_step_for_all_that_listen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Sampling(temperature=0.0, min_new_tokens=20, max_new_tokens=20)

    async def listen() -> int:
        loop, calls = asyncio.get_running_loop(), []
        call = loop.call_soon_threadsafe
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *rest, **more: (calls.append(1), call(*rest, **more))[1]
        )
        answers = engine.ask_all(QUESTIONS[1], samplings=[how] * 8)
        texts = await asyncio.gather(*(_whole(answer) for answer in answers))
        assert texts == [answer.text for answer in answers]
        return len(calls)

    async def _whole(answer: Any) -> str:
        return "".join([piece async for piece in answer])

    assert asyncio.run(listen()) <= 20


def test_pieces_are_the_answer_in_a_thread_and_in_a_coroutine(engine: Engine) -> None:
    async def listen() -> str:
        return "".join([piece async for piece in engine.ask(QUESTIONS[0], sampling=GREEDY)])

    answer = engine.ask(QUESTIONS[0], sampling=GREEDY)
    assert "".join(answer) == answer.text == asyncio.run(listen())
    assert answer.seconds_to_first_token is not None
    assert answer.seconds is not None


def test_text_is_made_when_it_is_shown_and_at_the_end(
    engine: Engine, random_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first piece at once, then no oftener than people see, whatever a step takes."""
    drawn = Sampling(seed=3, temperature=1.5, top_p=1.0, top_k=0, min_new_tokens=60, max_new_tokens=60)
    whole = engine.ask(QUESTIONS[1], sampling=drawn).wait().text
    monkeypatch.setattr("vglm.serving.engine.SHOWN_EVERY", 1e9)
    seldom = Engine(*load_pretrained(random_model_folder))
    try:
        seldom.ask(QUESTIONS[1], sampling=GREEDY).wait()
        pieces = list(seldom.ask(QUESTIONS[1], sampling=drawn))
        long = Sampling(seed=3, temperature=1.5, top_p=1.0, top_k=0, min_new_tokens=1500)
        cancelled = seldom.ask(QUESTIONS[1], sampling=long)
        while len(cancelled.token_ids) < 30:
            time.sleep(0.01)
        shown = cancelled.text
        cancelled.cancel()
        cancelled.wait(60)
    finally:
        seldom.close()
    assert len(pieces) <= 2
    assert "".join(pieces) == whole
    assert cancelled.text == shown
    assert AnswerDecoder(engine.processor).decode(cancelled.token_ids).startswith(shown)


def test_a_cancelled_answer_ends_and_the_others_are_as_without_it(engine: Engine) -> None:
    long = Sampling(temperature=0.0, min_new_tokens=400, max_new_tokens=400, repetition_penalty=1.0)
    cancelled, continued = (engine.ask(QUESTIONS[1], sampling=long) for _ in range(2))
    while cancelled.seconds_to_first_token is None:
        time.sleep(0.01)
    cancelled.cancel()
    assert cancelled.wait(60).finish_reason == "cancelled"
    assert len(cancelled.token_ids) < 400
    assert continued.wait(60).finish_reason == "length"
    assert continued.token_ids == engine.ask(QUESTIONS[1], sampling=long).wait().token_ids


def test_a_stop_text_ends_the_answer_before_it(engine: Engine) -> None:
    drawn = {"seed": 1, "temperature": 1.5, "top_p": 1.0, "top_k": 0, "max_new_tokens": 20}
    whole = engine.ask(QUESTIONS[1], sampling=Sampling(**drawn)).wait()
    stop = whole.text[len(whole.text) // 2 :][:2]
    answer = engine.ask(QUESTIONS[1], sampling=Sampling(**drawn, stop=(stop,)))
    assert "".join(answer) == answer.text == whole.text[: whole.text.find(stop)]
    assert answer.finish_reason == "stop"
    assert len(answer.token_ids) < len(whole.token_ids)


def test_english_mode_bars_chinese_characters(engine: Engine) -> None:
    barred = chinese_tokens(engine.processor.tokenizer)
    for seed in range(5):
        how = Sampling(seed=seed, temperature=2.0, top_p=1.0, top_k=0, max_new_tokens=30, bars_chinese=True)
        answer = engine.ask(QUESTIONS[1], sampling=how).wait()
        assert not set(answer.token_ids) & set(barred)
        assert not any(map(is_chinese, answer.text))
        assert answer.token_ids


def test_what_cannot_be_asked_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(AdapterError, match="there is no adapter 'x'; there are base, lora"):
        engine.ask(QUESTIONS[0], adapter="x")
    with pytest.raises(ConfigError, match=r"takes .* tokens with its history, and at most 20"):
        engine.ask(QUESTIONS[2], sampling=Sampling(max_length=20))
    with pytest.raises(ConfigError, match=r"takes .* tokens with its history"):
        engine.ask(Question("长" * 5000))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 to 5, got -1"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_p": 0}, "top_p must be a number above 0, at most 1, got 0"),
        ({"top_k": 1.5}, "top_k must be a whole number, 0 or more, got 1.5"),
        ({"max_length": 0}, "max_length must be a whole number above 0, got 0"),
        ({"max_new_tokens": True}, "max_new_tokens must be"),
        ({"seed": 2**64}, "seed must be a whole number of 64 bits"),
        ({"stop": ("",)}, "stop must be at most 4 texts of 1 to 500 characters"),
        ({"stop": "a"}, "stop must be"),
        ({"stop": ("a" * 501,)}, "stop must be"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
        ({"bars_chinese": 1}, "bars_chinese must be true or false"),
    ],
)
def test_impossible_settings_are_refused(values: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)


def test_more_than_may_wait_is_refused_and_the_rest_is_answered(random_model_folder: Path) -> None:
    engine = Engine(*load_pretrained(random_model_folder), max_rows=1, max_waiting=2)
    long = Sampling(temperature=0.0, min_new_tokens=200, max_new_tokens=200)
    first = engine.ask(QUESTIONS[1], sampling=long)
    while first.seconds_to_first_token is None:
        time.sleep(0.01)
    waiting = [engine.ask(QUESTIONS[1], sampling=GREEDY) for _ in range(2)]
    with pytest.raises(BusyError, match="2 questions wait already"):
        engine.ask(QUESTIONS[1], sampling=GREEDY)
    assert engine.load.waiting == 2
    engine.close()
    assert [answer.finish_reason for answer in (first, *waiting)] == ["length", "length", "length"]
    with pytest.raises(BusyError, match="shutting down"):
        engine.ask(QUESTIONS[1])


def test_several_answers_are_refused_where_not_all_may_wait(random_model_folder: Path) -> None:
    engine = Engine(*load_pretrained(random_model_folder), max_rows=1, max_waiting=3)
    first = engine.ask(QUESTIONS[1], sampling=Sampling(temperature=0.0, min_new_tokens=200, max_new_tokens=200))
    while first.seconds_to_first_token is None:
        time.sleep(0.01)
    waiting = engine.ask_all(QUESTIONS[1], samplings=[GREEDY])
    with pytest.raises(BusyError, match="1 questions wait already and 3 answers are asked for; at most 3 may"):
        engine.ask_all(QUESTIONS[1], samplings=[GREEDY] * 3)
    assert engine.load.waiting == 1
    waiting += engine.ask_all(QUESTIONS[1], samplings=[GREEDY] * 2)
    assert engine.load.waiting == 3
    engine.close()
    assert len({tuple(answer.wait().token_ids) for answer in waiting}) == 1
    assert first.finish_reason == "length"


def test_one_of_several_answers_is_cancelled_and_the_others_are_as_alone(engine: Engine) -> None:
    how = [
        Sampling(seed=seed, temperature=1.5, top_p=1.0, top_k=0, min_new_tokens=100, max_new_tokens=100)
        for seed in range(4)
    ]
    answers = engine.ask_all(QUESTIONS[0], samplings=how)
    while answers[1].seconds_to_first_token is None:
        time.sleep(0.001)
    answers[1].cancel()
    assert answers[1].wait(60).finish_reason == "cancelled"
    assert len(answers[1].token_ids) < 100
    for index in (0, 2, 3):
        alone = engine.ask(QUESTIONS[0], sampling=how[index]).wait()
        assert answers[index].wait(60).token_ids == alone.token_ids


def test_virtual_tokens_count_as_part_of_the_whole(engine: Engine) -> None:
    question = Question("你好")
    length = engine.ask(question, sampling=GREEDY).wait().prompt_tokens
    how = Sampling(temperature=0.0, min_new_tokens=64, max_length=length + 32 + 5)
    tokens = {name: len(engine.ask(question, adapter=name, sampling=how).wait().token_ids) for name in engine.names}
    virtual = {"p_tuning_v2": 16, "p_tuning": 32, "prompt_tuning": 32}
    assert tokens == {name: 32 + 5 - virtual.get(name, 0) for name in engine.names}
    with pytest.raises(ConfigError, match=r"takes \d+ tokens with its history and the adapter 32 before it"):
        engine.ask(question, adapter="prompt_tuning", sampling=Sampling(max_length=length + 32))


@pytest.mark.parametrize(("on_gpu", "adapter"), [(False, BASE), (True, BASE), (False, "prompt_tuning")])
def test_room_for_keys_and_values_bounds_what_runs_at_once(
    random_model_folder: Path, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch, on_gpu: bool, adapter: str
) -> None:
    """Also where tensors grow by doubling, as on a GPU: what counts is the room, not what is in use of it."""
    columns = 256 if on_gpu else 64 if adapter == BASE else 128  # 32 virtual tokens go beyond 64
    for module in ("vglm.model.decoding", "vglm.serving.decoding"):
        monkeypatch.setattr(f"{module}.room_for", lambda rows, columns, **_: room_for(rows, columns, on_gpu=on_gpu))
    rooms = []

    class Measured(Decoder):
        def go_on(self, *arguments: Any) -> None:
            super().go_on(*arguments)
            rooms.append([batch.keys[0].shape[0] * batch.keys[0].shape[2] for batch in self.batches.values()])

    budget = 2 * 5 * columns  # for five rows and a move of theirs
    engine = Engine(
        *load_pretrained(random_model_folder), adapters=adapters, max_cached_tokens=budget, decoder=Measured
    )
    how = Sampling(temperature=0.0, min_new_tokens=30, max_new_tokens=30)
    answers = [engine.ask(Question("你好"), adapter=adapter, sampling=how) for _ in range(12)]
    assert all(answer.wait().finish_reason == "length" for answer in answers)
    engine.close()
    assert max(sum(sizes) + max(sizes) for sizes in rooms) <= budget
    assert max(map(sum, rooms)) == (4 if on_gpu else 5) * columns  # and no less than what fits


def test_memory_that_runs_out_ends_one_batch_and_not_the_engine(
    random_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(*load_pretrained(random_model_folder))
    expected = engine.ask(QUESTIONS[1], sampling=GREEDY).wait().text
    lay_out, is_full, began = DecodingBatch._lay_out, threading.Event(), threading.Event()

    def lay_out_if_there_is_room(self: DecodingBatch, parts: Any) -> None:
        if is_full.is_set() and len(parts) > 1:  # when a row joins
            began.set()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        lay_out(self, parts)

    monkeypatch.setattr(DecodingBatch, "_lay_out", lay_out_if_there_is_room)
    is_full.set()
    first = engine.ask(QUESTIONS[1], sampling=Sampling(temperature=0.0, min_new_tokens=1900))
    while not first.token_ids:
        time.sleep(0.001)
    second = engine.ask(QUESTIONS[1], sampling=GREEDY)
    with pytest.raises(WorkbenchError, match="CUDA out of memory"):
        second.wait()
    assert began.is_set()
    is_full.clear()
    assert engine.ask(QUESTIONS[1], sampling=GREEDY).wait().text == expected
    first.cancel()
    assert first.wait().finish_reason == "cancelled"
    engine.close()


def test_a_failure_ends_the_answers_it_is_about_and_no_other(engine: Engine, adapters: dict[str, Path]) -> None:
    base = engine.base
    with torch.no_grad():
        head, weight = base.lm_head, base.lm_head.weight.clone()
        head.weight.fill_(float("nan"))
        answer = engine.ask(QUESTIONS[1], sampling=GREEDY)
        with pytest.raises(WorkbenchError, match="its logits are not finite numbers"):
            answer.wait()
        head.weight.copy_(weight)
    assert engine.ask(QUESTIONS[1], sampling=GREEDY).wait().finish_reason in ("stop", "length")
    assert engine.is_alive


def test_an_adapter_that_has_diverged_is_refused(
    random_model_folder: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    broken = shutil.copytree(adapters["lora"], tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values())).view(-1)[3] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(AdapterError, match=r"1 of its \d+ tensors hold NaN or infinity .* lower learning rate"):
        Engine(*load_pretrained(random_model_folder), adapters={"broken": broken})


def test_an_adapter_of_another_base_is_refused(adapters: dict[str, Path]) -> None:
    with pytest.raises(AdapterError, match="belongs to another base model"):
        Engine(*load_pretrained(repo_root() / "data/visualglm_tiny"), adapters={"lora": adapters["lora"]})
