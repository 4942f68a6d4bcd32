"""A published folder has weights that answer as the run does, and a card that says what the report says."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import evaluate
import train
from vglm.cli import main
from vglm.config import compose
from vglm.model.loading import detect_layout, load_pretrained
from vglm.runs import Run


def _run(folder: Path, model: Path, data: Path, *overrides: str) -> Path:
    settings = [
        "dataset=fewshot_background",
        f"model.path_or_id={model}",
        f"dataset.path={data}",
        f"output_dir={folder}",
        *overrides,
    ]
    settings += ["trainer.max_steps=2", "trainer.learning_rate=0.05", "trainer.use_cpu=true"]
    train.run(compose("train", [*settings, "trainer.disable_tqdm=true", "allow_leakage=true"]))
    evaluation = [f"run={folder}", "max_new_tokens=2", "image_use_samples=2", "baselines=false", "splits=[test]"]
    evaluate.run(compose("evaluate", evaluation))
    return folder


@pytest.fixture(scope="module")
def run_folder(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and evaluated run of LoRA."""
    return _run(tmp_path_factory.mktemp("outputs") / "lora", random_model_folder, few_shot_folder)


def _logits(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    model, processor = load_pretrained(folder, adapter=adapter)
    inputs = processor(text=["背景是什么颜色？"], return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs, logits_to_keep=1).logits


def test_an_adapter_goes_to_the_hub_with_its_card_and_report(
    run_folder: Path, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    assert main(["export", str(run_folder), "--output", str(folder)]) == 0
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.eval_results[0].metric_type == "exact_match"
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    text = card.text.replace("\\", "")
    assert report["verdict"]["en"] in text
    for stamp in report["evaluation"]["stamps"]:
        assert stamp["text"].split(":")[0] in text
    assert "95% interval" in text
    assert Run.open(run_folder).record.data.sha256 in text
    assert str(run_folder.parent) not in text
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert f"{few_shot_folder.name}/red.png" in page
    for file in folder.rglob("*"):
        if file.suffix in (".html", ".json", ".md", ".svg"):
            assert str(few_shot_folder.parent) not in file.read_text(encoding="utf-8"), file
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == random_model_folder.name
    expected = _logits(random_model_folder, run_folder / "adapter")
    assert torch.equal(_logits(random_model_folder, folder), expected)
    assert not torch.equal(_logits(random_model_folder), expected)


@pytest.mark.parametrize("form", ["native", "hf", "sat"])
def test_plain_weights_answer_as_base_and_adapter(
    form: str, run_folder: Path, random_model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    assert main(["export", str(run_folder), "--to", form, "--output", str(folder)]) == 0
    layout = detect_layout(folder)
    assert (layout is None) == (form == "native")
    tokenizer = None if form != "sat" else random_model_folder
    model, processor = load_pretrained(folder, tokenizer=tokenizer)
    inputs = processor(text=["背景是什么颜色？"], return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=1).logits
    assert torch.allclose(logits, _logits(random_model_folder, run_folder / "adapter"), atol=1e-4)
    assert json.loads((folder / "merge_certificate.json").read_text(encoding="utf-8"))["passed"]
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert ("--tokenizer" in card.text) == (form == "sat")  # the only one without ice_text.model
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "gguf"], "two rotary positions a token"),
        (["--to", "vllm"], "cannot express this architecture"),
        (["--to", "onnx"], "must be one of hub, native, hf, sat"),
        (["--to", "hub", "--dtype", "float16"], "--dtype is for weights that are merged"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    options: list[str], message: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_folder), "--output", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_scores_of_other_weights_are_not_published(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(run_folder, tmp_path / "run")
    file = copy / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    assert main(["export", str(copy), "--output", str(tmp_path / "x")]) == 2
    assert "was made with other weights" in capsys.readouterr().err
    shutil.rmtree(copy / "evaluation")
    assert main(["export", str(copy), "--output", str(tmp_path / "x")]) == 2
    assert "has no evaluation with a report" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_virtual_tokens_have_no_place_in_the_original_layouts(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _run(tmp_path / "run", random_model_folder, few_shot_folder, "method=p_tuning_v2")
    assert main(["export", str(folder), "--to", "hf", "--output", str(tmp_path / "x")]) == 2
    assert "made of virtual tokens" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main(["export", str(folder), "--to", "native", "--output", str(tmp_path / "y")]) == 0
    expected = _logits(random_model_folder, folder / "adapter")
    assert torch.allclose(_logits(tmp_path / "y" / "model", tmp_path / "y" / "adapter"), expected, atol=1e-5)
