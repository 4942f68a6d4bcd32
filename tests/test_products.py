"""oneDNN's kernels give what torch's give, and are taken for large float32 products without gradients alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vglm.model import products
from vglm.model.decoding import decode
from vglm.model.loading import load_pretrained
from vglm.model.products import SMALLEST, fast_products

PICTURE = Image.linear_gradient("L").convert("RGB")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """As on a processor that gains from it; the shapes that oneDNN was given."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    shapes: list[torch.Size] = []
    kernel: Any = torch.ops.mkldnn._linear_pointwise

    def counted(states: torch.Tensor, *arguments: Any) -> torch.Tensor:
        shapes.append(states.shape)
        product: torch.Tensor = kernel(states, *arguments)
        return product

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    monkeypatch.setattr(products, "has_faster_kernels", lambda: True)
    monkeypatch.setattr(products, "WORTHWHILE", SMALLEST)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_a_linear_layer(calls: list[torch.Size], bias: bool) -> None:
    """With and without a bias, in two and in three dimensions, by position and by name."""
    layer, states = nn.Linear(256, 1024, bias=bias), torch.randn(4, 16, 256)
    with torch.no_grad():
        expected = layer(states)
        with fast_products(states, 1024):
            results = [
                layer(states),
                layer(states.flatten(0, 1)).view_as(expected),
                F.linear(states, weight=layer.weight, bias=layer.bias),
                F.linear(states.transpose(0, 1), layer.weight, layer.bias).transpose(0, 1),
            ]
    assert len(calls) == len(results)
    for result in results:
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_small_products_other_types_and_gradients_stay_as_they_were(calls: list[torch.Size]) -> None:
    """Bit for bit, whatever the block was opened for."""
    large, small = torch.randn(64, 256), torch.randn(1, 256)
    weight = torch.randn(1024, 256)
    with torch.no_grad(), fast_products(large, 1024):
        assert torch.equal(F.linear(small, weight), torch.mm(small, weight.t()))
        F.linear(large.bfloat16(), weight.bfloat16())
        F.linear(large, torch.randn(256, 1024).t())
    with fast_products(large, 1024):
        F.linear(large, weight.requires_grad_()).sum().backward()
    assert weight.grad is not None
    with torch.no_grad(), fast_products(small, 1024):
        F.linear(large, weight)
    assert not calls


def test_answers_are_the_same(
    random_model_folder: Path, calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch with pictures, from the vision transformer to the head."""
    model: Any
    model, processor = load_pretrained(random_model_folder, dtype="float32")
    inputs = dict(processor(images=[PICTURE] * 64, text=["图中有什么？", "背景呢"] * 32, return_tensors="pt"))
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "custom_generate": decode}
    with torch.inference_mode():
        ours = model.generate(**inputs, **settings)
        assert calls
        monkeypatch.setattr(products, "has_faster_kernels", lambda: False)
        assert torch.equal(ours, model.generate(**inputs, **settings))
