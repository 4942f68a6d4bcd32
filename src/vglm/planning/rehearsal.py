"""Run a step of a model on the meta device and count the memory and the operations that it would take.

    with Rehearsal(model, batch, autocast=torch.bfloat16) as rehearsal:
        loss = model(**rehearsal.inputs, use_cache=False).loss
        rehearsal.backward(loss)
    course = rehearsal.course()
    course.peak                                              470_207_488, and by what it is for:
    course.activations, course.logits, course.working        448_299_008, 21_928_704, 0

Every tensor is counted from its allocation until its last reference is gone, as by an allocator; nothing is computed
and no memory is allocated. So the count follows the modules that run: adapters, checkpointing, another loss. A few of
many equal layers are enough, see `Course.extended`. Small integer tensors (token ids, masks, lengths) are really
computed, since shapes depend on them.

What a GPU does differently from the meta device is emulated: attention in one kernel, which stores no attention
weights, and autocast.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_SMALL = 1 << 24
"""Elements of the largest tensor of whole numbers whose values are kept: the mask of 16 rows of 1,024 tokens."""
_SMALL_FRACTIONS = 1 << 18
"""The same of fractions, such as the mask that peft adds to."""
_BIAS_MULTIPLE = 8
"""The fused kernel of attention has the rows of its mask padded to a multiple of this."""
_FOUR_BIT = "bitsandbytes::gemm_4bit"
_FEW_ROWS = 4
"""Rows up to which bitsandbytes' own kernel multiplies in 4 bits.

Source: `_gemm_4bit_use_custom_cuda` of bitsandbytes-foundation/bitsandbytes:bitsandbytes/backends/cuda/ops.py."""
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_, _aten._unsafe_index_put)
_FREE = (_aten.detach, _aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided)


_Mark = tuple[int, tuple[str, ...]]
"""When a phase begins, and its names."""


@dataclass(slots=True)
class _Piece:
    """A piece of memory: its bytes, whether its rows have the vocabulary's length, when it was taken and given back."""

    key: int
    size: int
    is_logits: bool
    born: int
    died: float = float("inf")


@dataclass(frozen=True)
class Course:
    """What a rehearsal found.

    Attributes:
        flops: Operations of matrix products.
        operations: Operations that are no views.
        activations: Bytes that the forward pass left to the backward pass.
        logits: Bytes of all with rows of the vocabulary's length, at their most.
        phases: By name, in the order of their beginnings: bytes at the moment when most was held, and what of them was
            neither of these nor stayed.
        results: Bytes of what the step is for, such as gradients.
    """

    flops: int
    operations: int
    activations: int
    logits: int
    phases: dict[str, tuple[int, int]]
    results: int = 0

    @property
    def peak(self) -> int:
        """Bytes at the moment when most was held."""
        return max(self.phases.values(), key=_first)[0]

    @property
    def working(self) -> int:
        """What else was held then."""
        return max(self.phases.values(), key=_first)[1]

    def extended(self, more: "Course", layers: int) -> "Course":
        """The course of a model of more layers.

        With each equal layer all sums grow by the same, and so does what is held at a given moment of a phase. Between
        the second and the last but one layer it rises or falls evenly, so that no phase between them has the most.

        Args:
            more: The course with one layer more.
            layers: How many more than in this one.
        """

        def at(few: int, one_more: int) -> int:
            return few + layers * (one_more - few)

        return Course(
            at(self.flops, more.flops),
            at(self.operations, more.operations),
            at(self.activations, more.activations),
            at(self.logits, more.logits),
            {
                name: (at(most, more.phases[name][0]), at(working, more.phases[name][1]))
                for name, (most, working) in self.phases.items()
            },
            at(self.results, more.results),
        )


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _most_by_phase(
    pieces: Iterable[_Piece], marks: Sequence[tuple[int, tuple[str, ...]]]
) -> dict[str, tuple[int, int]]:
    """The most bytes of some pieces in each phase, and when that was first; phases of one name are one."""
    changes: list[tuple[float, int]] = [(piece.born, piece.size) for piece in pieces]
    changes += [(piece.died, -piece.size) for piece in pieces if piece.died < float("inf")]
    changes.sort()
    current, position, phases = 0, 0, dict[str, tuple[int, int]]()
    ends = (*(begin for begin, _ in marks[1:]), float("inf"))
    for (begin, names), end in zip(marks, ends, strict=True):
        most, moment = current, begin
        while position < len(changes) and changes[position][0] <= end:
            current += changes[position][1]
            if current > most:
                most, moment = current, int(changes[position][0])
            position += 1
        phases |= {name: max(phases.get(name, (0, 0)), (most, moment), key=_first) for name in names}
    return phases


class Rehearsal(TorchDispatchMode):
    """Books what is made while it is entered.

    Args:
        model: On the meta device.
        batch: Inputs with their values, on the CPU; `inputs` is what to call the model with.
        autocast: What matrix products are computed in, as `torch.autocast` has it on a GPU; None for no autocast.
        fused_attention: Whether attention is one kernel that keeps no weights, as on a GPU.

    Attributes:
        inputs: The batch on the meta device.
        flops: Operations of matrix products so far: two for each multiplication with its addition.
        operations: Operations so far that are not views: a GPU launches a kernel for each, or more.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        *,
        autocast: torch.dtype | None = None,
        fused_attention: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = {name: _on_meta(value) for name, value in batch.items()}
        self.flops = self.operations = 0
        self._vocabulary = model.config.text_config.vocab_size  # type: ignore[union-attr]
        self._kernels = _Kernels(autocast, fused_attention)
        self._clock = 0
        self._pieces: list[_Piece] = []
        self._live: dict[int, _Piece] = {}
        self._backward_began: float = float("inf")
        self._marks: list[_Mark] = [(0, ("begin",))]
        self._hooks: list[Any] = []

    def __enter__(self) -> "Rehearsal":
        super().__enter__()
        self._kernels.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._kernels.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def backward(self, loss: Tensor) -> None:
        """Go back from a loss; what is held when that begins was kept for it."""
        self._backward_began = self._clock
        # loss.backward() would run without `_Kernels`, which layers that checkpointing computes again need.
        _engine_run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    def follow(self, layers: nn.ModuleList) -> None:
        """Tell phases apart by the first two and the last two of some layers, forward and backward."""
        indices = {"first": 0, "second": 1, "last but one": len(layers) - 2, "last": len(layers) - 1}
        for index in sorted(set(indices.values()) & set(range(len(layers)))):
            names = tuple(name for name, of_name in indices.items() if of_name == index)
            self._hooks += [
                layers[index].register_forward_pre_hook(lambda *_, names=names: self._mark("before", names)),
                layers[index].register_forward_hook(lambda *called, names=names: self._mark_output(called[-1], names)),
            ]

    def _mark(self, where: str, names: tuple[str, ...], *, is_back: bool = False) -> None:
        if is_back or self._backward_began == float("inf"):  # else checkpointing computes a layer again
            self._marks.append((self._clock, tuple(f"{where} {name}" for name in names)))

    def _mark_output(self, output: Tensor, names: tuple[str, ...]) -> None:
        self._mark("after", names)
        if output.requires_grad and self._backward_began == float("inf"):
            output.register_hook(lambda _: self._mark("back before", names, is_back=True))

    def course(self) -> "Course":
        """What was found."""
        logits = [piece for piece in self._pieces if piece.is_logits]
        kept = [piece for piece in self._pieces if self._is_kept(piece) and not piece.is_logits]
        others = [piece for piece in self._pieces if not piece.is_logits and not self._is_kept(piece)]

        def working(moment: int) -> int:
            return sum(piece.size for piece in others if piece.born <= moment < piece.died < float("inf"))

        return Course(
            flops=self.flops,
            operations=self.operations,
            activations=sum(piece.size for piece in kept),
            logits=max(most for most, _ in _most_by_phase(logits, [(0, ("all",))]).values()),
            phases={
                name: (most, working(moment))
                for name, (most, moment) in _most_by_phase(self._pieces, self._marks).items()
            },
        )

    def _is_kept(self, piece: _Piece) -> bool:
        return piece.born <= self._backward_began < piece.died

    # --- what every operation goes through ---------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation on shapes, and book what it has made."""
        kwargs = kwargs or {}
        tensors = _tensors_in((*args, *kwargs.values()))
        result = _run(func, args, kwargs, tensors)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        if func.overloadpacket._qualified_op_name == _FOUR_BIT:
            self._multiply_in_four_bits(args[0], args[2])
        self.operations += not func.is_view and func.overloadpacket not in _FREE
        operands = {tensor.untyped_storage()._cdata for tensor in tensors}
        for tensor in _tensors_in((result,)):
            if tensor.is_meta and tensor.untyped_storage()._cdata not in operands:
                self._book(tensor)
        return result

    def _multiply_in_four_bits(self, inputs: Tensor, shape: Sequence[int]) -> None:
        """What a product with a 4-bit weight takes within itself: for more than a few rows the weight in full."""
        rows = inputs.numel() // inputs.shape[-1]
        self.flops += 2 * rows * shape[0] * shape[1]
        if rows > _FEW_ROWS:
            self._book(torch.empty(tuple(shape), dtype=inputs.dtype, device="meta"))

    def _book(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        self._clock += 1
        is_logits = tensor.ndim > 0 and tensor.shape[-1] == self._vocabulary
        piece = self._live[key] = _Piece(key, storage.nbytes(), is_logits, self._clock)
        self._pieces.append(piece)
        finalize(storage, self._give_back, piece).atexit = False

    def _give_back(self, piece: _Piece) -> None:
        self._clock += 1
        piece.died = self._clock
        del self._live[piece.key]


def _on_meta(value: Tensor) -> Tensor:
    """A tensor of shapes alone that remembers its values."""
    tensor: Any = value.to("meta")
    if not value.is_floating_point():
        tensor.values_known = value
    return tensor  # type: ignore[no-any-return]


def _tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among some values and in the lists among them."""
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += [inner for inner in value if isinstance(inner, Tensor)]
    return tensors


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """Run an operation on shapes; where all operands' values are known and the result is small, on these as well."""
    is_known = all(hasattr(tensor, "values_known") or not tensor.is_meta for tensor in tensors)
    if not is_known:
        return _run_on_shapes(func, args, kwargs, tensors)
    if func is _aten._local_scalar_dense.default:
        return _values_of(args[0]).item()
    if func is _aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu":
        return func(*tree_map(_values_of, args), **kwargs)
    try:
        result = func(*args, **kwargs)
    except (NotImplementedError, RuntimeError):  # a shape that depends on values
        return tree_map(_on_meta_if_tensor, func(*tree_map(_values_of, args), **_on_cpu(kwargs)))
    made = _tensors_in((result,))
    is_small = all(tensor.numel() <= (_SMALL_FRACTIONS if tensor.is_floating_point() else _SMALL) for tensor in made)
    if is_small and made and made[0].is_meta:
        for tensor, value in zip(
            made, _tensors_in((func(*tree_map(_values_of, args), **_on_cpu(kwargs)),)), strict=True
        ):
            tensor.values_known = value  # type: ignore[attr-defined]
    return result


_known_results: dict[Any, tuple[Any, ...]] = {}
"""What an operation makes of such operands: sizes, strides and type of its result. A model's layers are all alike."""


def _run_on_shapes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """Run an operation on shapes, or repeat what came of it before."""
    if func.overloadpacket in _INDEXED:
        args = (args[0], [index for arg in args[1] for index in _as_indices(arg)], *args[2:])
    if func.is_view or func._schema.is_mutable or len(func._schema.returns) != 1:
        return func(*args, **kwargs)
    key = (func, *map(_form, args), *((name, _form(kwarg)) for name, kwarg in kwargs.items()))
    if (form := _known_results.get(key)) is not None:
        size, stride, dtype = form
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")
    result = func(*args, **kwargs)
    operands = {tensor.untyped_storage()._cdata for tensor in tensors}
    if isinstance(result, Tensor) and result.is_meta and result.untyped_storage()._cdata not in operands:
        _known_results[key] = (result.shape, result.stride(), result.dtype)
    return result


def _form(value: Any) -> Any:
    """What of an operand decides on the form of a result."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return tuple(map(_form, value)) if isinstance(value, list | tuple) else value


def _values_of(value: Any) -> Any:
    return getattr(value, "values_known", value)


def _on_meta_if_tensor(value: Any) -> Any:
    return _on_meta(value) if isinstance(value, Tensor) else value


def _on_cpu(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: tree_map(_values_of, value) for name, value in kwargs.items()}
    return {**values, "device": torch.device("cpu")} if values.get("device") is not None else values


def _as_indices(index: Any) -> list[Any]:
    """A mask as the places where it is true, for operations that take one as an index."""
    if not isinstance(index, Tensor) or index.dtype != torch.bool:
        return [index]
    return [_on_meta(indices) for indices in _values_of(index).nonzero(as_tuple=True)]


# --- what a GPU does otherwise ---------------------------------------------------------------------------------------

_LOWERED: tuple[Any, ...] = (
    *(F.linear, F.conv2d, F.scaled_dot_product_attention, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm),
    *(Tensor.__rmatmul__, Tensor.bmm, torch.addmm, Tensor.addmm, torch.mm, Tensor.mm, torch.baddbmm),
)
_RAISED: tuple[Any, ...] = (
    *(F.layer_norm, F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax, F.cross_entropy),
    *(F.nll_loss, torch.cumsum, Tensor.cumsum, torch.pow, Tensor.pow, torch.exp, Tensor.exp, torch.rsqrt, Tensor.rsqrt),
)
"""What autocast computes in the lower type, and what in float32.

Source: "CUDA op-specific behavior" of pytorch/pytorch:docs/source/amp.md, as far as this model's modules call it."""


class _Kernels(TorchFunctionMode):
    """Autocast, and attention in one kernel."""

    def __init__(self, autocast: torch.dtype | None, fused_attention: bool) -> None:
        super().__init__()
        self.autocast = autocast
        self.fused_attention = fused_attention

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.autocast is not None and func in _LOWERED:
            args, kwargs = _cast(args, kwargs, self.autocast)
        elif self.autocast is not None and func in _RAISED:
            args, kwargs = _cast(args, kwargs, torch.float32)
        if func is F.scaled_dot_product_attention and self.fused_attention:
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)


def _cast(args: Any, kwargs: Any, dtype: torch.dtype) -> Any:
    def one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tree_map(one, (args, kwargs))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The memory-efficient kernel, which PyTorch takes on a GPU where there is a mask; arguments are its own."""
    bias = None
    if attn_mask is not None:
        width = -(-attn_mask.shape[-1] // _BIAS_MULTIPLE) * _BIAS_MULTIPLE
        bias = torch.empty((*attn_mask.shape[:-1], width), dtype=query.dtype, device=query.device)
        bias = bias[..., : attn_mask.shape[-1]].expand(*query.shape[:-1], key.shape[-2])
    needs_gradient = any(tensor.requires_grad for tensor in (query, key, value)) and torch.is_grad_enabled()
    output: Tensor = _aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, dropout_p, is_causal, scale=scale
    )[0]
    return output
