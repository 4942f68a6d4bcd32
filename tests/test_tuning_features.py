"""A frozen vision tower looks at each picture once: nothing changes but the time and the memory."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from PIL import Image
from transformers import TrainingArguments, set_seed

from vglm.caching import VARIABLE
from vglm.config import build, compose, repo_root
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample, Turn
from vglm.data.sequences import TrainingSequences
from vglm.errors import CacheError, ConfigError
from vglm.evaluation.predict.controls import shuffle_images
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.model.identity import hash_weights
from vglm.model.loading import load_pretrained
from vglm.model.modeling import ENCODER_PARTS
from vglm.tuning.contract import answer_logits, check_saved
from vglm.tuning.features import cache_features, open_features
from vglm.tuning.methods import attach, save
from vglm.tuning.trainer import WorkbenchTrainer
from vglm.worlds.pretraining import SceneDialogues

TINY = repo_root() / "data" / "visualglm_tiny"


def lora(**options: object) -> LoraConfig:
    return build(compose(overrides=[f"++method.{key}={value}" for key, value in options.items()]).method)


def losses_of(trainer: WorkbenchTrainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.fixture
def samples(few_shot_folder: Path) -> list[Sample]:
    return list(load_dataset(few_shot_folder).train)


@pytest.fixture
def make_trainer(random_model_folder: Path, samples: list[Sample], tmp_path: Path):
    def make(*, is_cached: bool, name: str = "", lora_dropout: float = 0.2, **options: object):
        set_seed(3)
        model, processor = load_pretrained(random_model_folder)
        model = attach(model, lora(lora_dropout=lora_dropout))
        features = cache_features(model, processor, samples, folder=tmp_path / "cache") if is_cached else None
        arguments = TrainingArguments(
            output_dir=str(tmp_path / f"run{is_cached}{name}"),
            max_steps=4,
            per_device_train_batch_size=4,
            learning_rate=0.01,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=False,
            disable_tqdm=True,
            seed=3,
            **options,
        )
        collate = Collator(processor, features=features)
        return WorkbenchTrainer(model, arguments, samples, collate), processor

    return make


def test_training_from_the_cache_is_training(make_trainer) -> None:
    runs = []
    for is_cached in (False, True):
        runs.append(make_trainer(is_cached=is_cached)[0])
        runs[-1].train()
    losses = [losses_of(trainer) for trainer in runs]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0, atol=1e-4)  # another batch size may round otherwise
    assert len(losses[0]) == 4
    plain, cached = ({n: p for n, p in t.model.named_parameters() if p.requires_grad} for t in runs)
    assert plain.keys() == cached.keys()


def test_the_towers_weights_are_gone_and_the_saved_adapter_answers_to_pixels(
    make_trainer, random_model_folder: Path, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, processor = make_trainer(is_cached=True)
    printed = capsys.readouterr().out
    assert printed.startswith("6 pictures' features cached (0.0 MB), 6 of them new; the vision tower left the memory")
    assert not [name for name, _ in trainer.model.named_parameters() if any(part in name for part in ENCODER_PARTS)]
    assert not [name for name, _ in trainer.model.named_modules() if any(part in name for part in ENCODER_PARTS)]
    trainer.train()
    expected = answer_logits(trainer.trained_model(), trainer.data_collator(samples[:2]))
    assert hash_weights(trainer.model.get_base_model()) == hash_weights(load_pretrained(random_model_folder)[0])
    adapter = save(trainer.trained_model(), processor, tmp_path)
    pixels = Collator(processor)(samples[:2])
    assert "pixel_values" in pixels
    reloaded, _ = load_pretrained(random_model_folder, adapter=adapter)
    assert torch.equal(answer_logits(reloaded, pixels), expected)
    assert check_saved(trainer.trained_model(), adapter, trainer.data_collator(samples[:2])).problems == ()


def test_workers_read_the_cache(make_trainer) -> None:
    losses = []
    for workers in (0, 1):
        trainer, _ = make_trainer(is_cached=True, name=str(workers), dataloader_num_workers=workers)
        trainer.train()
        losses.append(losses_of(trainer))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_tiny_models_features_and_losses_are_those_of_pixels(tmp_path: Path, batch_size: int) -> None:
    model, processor = load_pretrained(TINY)
    scenes = [scene for scene in SceneDialogues(12, seed=9) if scene.image is not None][:8]
    features = open_features(model, processor, folder=tmp_path)
    assert features is not None
    features.fill(scenes)
    with torch.no_grad():
        for start in range(0, len(scenes), batch_size):
            rows = scenes[start : start + batch_size]
            plain, cached = Collator(processor)(rows), Collator(processor, features=features)(rows)
            computed = model.get_image_features(plain["pixel_values"])
            torch.testing.assert_close(cached["image_features"], computed, rtol=1e-4, atol=1e-4)  # another batch size
            torch.testing.assert_close(model(**cached).loss, model(**plain).loss, rtol=0, atol=1e-5)


def test_answers_from_the_cache_are_the_same_answers(
    tmp_path: Path, few_shot_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    model, processor = load_pretrained(TINY)
    samples = [*load_dataset(few_shot_folder).train, Sample("text", "t", None, (Turn("你好", ""),))]
    for rows in (samples, shuffle_images(samples, seed=1)):
        plain = generate_predictions(model, processor, rows, Decoding(max_new_tokens=8, batch_size=3))
        cached = generate_predictions(
            model, processor, rows, Decoding(max_new_tokens=8, batch_size=3), feature_cache=True
        )
        assert cached == plain
    monkeypatch.setattr(type(model.model), "get_image_features", None)  # a second evaluation asks the tower nothing
    assert generate_predictions(model, processor, rows, Decoding(max_new_tokens=8), feature_cache=True) == plain


def test_an_evaluation_goes_on_when_the_cache_cannot_be_written(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = load_pretrained(TINY)
    plain = generate_predictions(model, processor, samples, Decoding(max_new_tokens=4, batch_size=2))
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def fail(*_: object) -> None:
        raise CacheError("No space left on device")

    monkeypatch.setattr("vglm.data.feature_cache.FeatureCache._encode", fail)
    records = generate_predictions(
        model, processor, samples, Decoding(max_new_tokens=4, batch_size=2), feature_cache=True
    )
    assert records == plain
    assert caplog.text.count("features of pictures are not cached any further: No space left") == 1


def test_beams_and_a_cache_free_generation_take_features(tmp_path: Path, samples: list[Sample]) -> None:
    model, processor = load_pretrained(TINY)
    features = open_features(model, processor, folder=tmp_path)
    assert features is not None
    features.fill(samples)
    for options in ({"num_beams": 2}, {"use_cache": False}):
        outputs = []
        for store in (None, features):
            batch = Collator(processor, with_answers=False, features=store)(samples[:2])
            outputs.append(model.generate(**batch, do_sample=False, max_new_tokens=4, **options))
        assert torch.equal(*outputs)


def test_whatever_changes_the_features_changes_the_key(random_model_folder: Path, tmp_path: Path) -> None:
    model, processor = load_pretrained(random_model_folder)
    folders = set()

    def note() -> None:
        features = open_features(model, processor, folder=tmp_path)
        assert features is not None
        assert features.folder not in folders
        folders.add(features.folder)

    note()
    core = model.model
    for parameter in (
        core.query_tokens,
        core.qformer.layernorm.weight,
        core.vision_model.post_layernorm.bias,
    ):
        with torch.no_grad():
            parameter.view(-1)[0] += 2**-12
        note()
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    note()
    processor.image_processor.resample = 2
    note()
    core.config.vision_config.layer_norm_eps *= 2
    note()
    model.set_attn_implementation("eager")
    note()
    model.half()
    note()
    before = len(folders)
    model.model.language_model.half().float()
    with torch.no_grad():
        model.model.language_model.final_layernorm.weight += 1
        model.model.language_projection.weight += 1
    features = open_features(model, processor, folder=tmp_path)
    assert features is not None
    assert features.folder in folders  # projection and language model have no say in it
    assert len(folders) == before


def test_what_trains_adapts_or_drops_out_is_not_cached(
    random_model_folder: Path, samples: list[Sample], tmp_path: Path
) -> None:
    def tuned(method: LoraConfig, **options: float):
        model, processor = load_pretrained(random_model_folder)
        for name, value in options.items():
            setattr(model.config.qformer_config, name, value)
        return attach(model, method), processor

    folder = tmp_path / "cache"
    everywhere, processor = tuned(LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert cache_features(everywhere, processor, samples, folder=folder) is None
    assert open_features(everywhere, processor, folder=folder) is None
    model, processor = tuned(lora())
    model.get_base_model().model.qformer.layernorm.bias.requires_grad_(True)
    assert cache_features(model, processor, samples, folder=folder) is None
    model, processor = tuned(lora())
    model.get_base_model().model.language_projection.bias.requires_grad_(True)  # behind what is cached
    assert cache_features(model, processor, samples, folder=tmp_path / "other") is not None
    model, processor = tuned(lora(), hidden_dropout_prob=0.1)
    assert cache_features(model, processor, samples, folder=folder) is None
    model, processor = tuned(lora())
    assert cache_features(model, processor, SceneDialogues(3, seed=1), folder=folder) is None
    assert not list(folder.glob("**/*.safetensors"))
    assert model.get_base_model().model.has_vision


def test_a_cache_that_cannot_be_written_is_done_without(
    random_model_folder: Path, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = load_pretrained(random_model_folder)
    (tmp_path / "file").write_text("")
    assert cache_features(attach(model, lora()), processor, samples, folder=tmp_path / "file") is None
    assert "features of pictures are not cached: " in caplog.text
    assert model.model.has_vision


def test_a_model_that_is_saved_whole_keeps_its_tower(
    random_model_folder: Path, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = load_pretrained(random_model_folder)
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    assert cache_features(model, processor, samples, folder=tmp_path) is not None
    assert "the vision tower stays, to be saved with the model" in capsys.readouterr().out
    assert model.model.has_vision


@pytest.mark.parametrize("source", ["native", "original", "nf4"])
def test_a_model_loads_without_its_tower(
    source: str, random_model_folder: Path, reference: Path, samples: list[Sample], tmp_path: Path
) -> None:
    folder = reference / "hf_layout" if source == "original" else random_model_folder
    options = {"quantization": "nf4"} if source == "nf4" else {}
    whole, processor = load_pretrained(folder, **options)
    blind, _ = load_pretrained(folder, with_vision=False, **options)
    assert not blind.model.has_vision
    encoder = tuple(f"model.{part}" for part in ENCODER_PARTS)
    assert set(dict(whole.named_parameters())) - set(dict(blind.named_parameters())) == {
        name for name, _ in whole.named_parameters() if name.startswith(encoder)
    }
    assert hash_weights(blind) == hash_weights(whole)
    features = open_features(whole, processor, folder=tmp_path)
    assert features is not None
    features.fill(samples)
    with torch.no_grad():
        expected = whole(**Collator(processor)(samples)).loss
        assert torch.equal(blind(**Collator(processor, features=features)(samples)).loss, expected)
    with pytest.raises(ValueError, match="This model has no vision parts"):
        blind(**Collator(processor)(samples))


def test_batches_of_similar_length(make_trainer) -> None:
    trainer, processor = make_trainer(is_cached=False, train_sampling_strategy="group_by_length")
    with pytest.raises(ConfigError, match="needs a training set that knows its lengths"):
        trainer.get_train_dataloader()
    picture = Image.new("RGB", (4, 4))
    rows = [Sample(str(n), "g", picture, (Turn("问" * (1 + 7 * n % 40), "答"),)) for n in range(40)]
    trainer.train_dataset = TrainingSequences(rows, processor, max_length=500)
    batches = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    assert sum(len(mask) for mask in batches) == 40
    padding = sum(int((mask == 0).sum()) for mask in batches)
    trainer.args.train_sampling_strategy = "random"
    at_random = sum(int((batch["attention_mask"] == 0).sum()) for batch in trainer.get_train_dataloader())
    assert padding < at_random / 2


def test_packing_is_refused_where_virtual_tokens_stand_before_a_row(
    random_model_folder: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_pretrained(random_model_folder)
    method = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    with pytest.raises(ConfigError, match="packing does not go with prompt methods"):
        WorkbenchTrainer(attach(model, method), arguments, samples, Collator(processor, packing=100))


def test_a_packed_step_is_an_unpacked_step(make_trainer, random_model_folder: Path) -> None:
    losses = []
    for name, packing in (("a", None), ("b", 200)):
        trainer, processor = make_trainer(is_cached=True, name=name, lora_dropout=0.0)
        trainer.data_collator = Collator(processor, features=trainer.data_collator.features, packing=packing)
        trainer.train()
        losses.append(losses_of(trainer))
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0, atol=1e-5)
