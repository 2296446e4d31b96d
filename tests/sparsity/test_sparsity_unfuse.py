"""Modules of plain linear maps against torch's fused ones, before, during and after wrapping."""

from __future__ import annotations

import copy
import doctest
import io
import itertools
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from dissect.errors import DissectError
from dissect.sparsity import named_variational, shared_noise, wrap
from dissect.sparsity.attention import MultiheadAttention
from dissect.sparsity.recurrent import GRU, LSTM, RNN
from dissect.sparsity.unfuse import Unfused, fuse, unfuse

RECURRENT: dict[str, Callable[..., nn.Module]] = {
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "tanh": nn.RNN,
    "relu": lambda *args, **options: nn.RNN(*args, nonlinearity="relu", **options),
}
SHAPES = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"num_layers": 2, "batch_first": True},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]
LINEAR = {"weight_ih_l": ("input_", "weight"), "weight_hh_l": ("hidden_", "weight"), "bias_ih_l": ("input_", "bias"),
          "bias_hh_l": ("hidden_", "bias")}  # fmt: skip


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def close(a: Any, b: Any) -> bool:
    """Equal to 1e-10, in shape and layout too, through tuples and packed sequences."""
    if isinstance(a, PackedSequence):
        assert torch.equal(a.batch_sizes, b.batch_sizes)
        for x, y in ((a.sorted_indices, b.sorted_indices), (a.unsorted_indices, b.unsorted_indices)):
            assert close(x, y)
        return close(a.data, b.data)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    if a is None:
        return b is None
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return torch.allclose(a, b, rtol=0, atol=1e-10, equal_nan=True)


def twins(module: nn.Module) -> tuple[Any, Any]:
    """A fused module and its replacement, with biases, which torch starts at zero in attention."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name:
                parameter.normal_()
    plain = copy.deepcopy(module)
    assert unfuse(plain)
    return module, plain


# ---- recurrences


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrence_equals_torchs(kind: str, options: dict[str, Any]):
    fused, plain = twins(RECURRENT[kind](3, 4, **options))
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    batch = torch.randn(5, 6, 3)  # six steps of five sequences, or the other way round

    def state(*size: int) -> Any:
        parts = [torch.randn(rows, *size, 4) for _ in range(2 if kind == "lstm" else 1)]
        return tuple(parts) if kind == "lstm" else parts[0]

    sequences = 5 if options.get("batch_first") else 6
    lengths = torch.tensor([2, 6, 1, 6, 3]) if options.get("batch_first") else torch.tensor([2, 5, 1, 5, 3, 4])
    for ordered in (False, True):
        sizes = lengths.sort(descending=True).values if ordered else lengths
        packed = pack_padded_sequence(batch, sizes, bool(options.get("batch_first")), enforce_sorted=ordered)
        assert (packed.sorted_indices is None) == ordered
        for hx in (None, state(sequences)):
            assert close(plain(packed, hx), fused(packed, hx))
    for hx in (None, state(sequences)):
        assert close(plain(batch, hx), fused(batch, hx))
        assert plain(batch, hx)[0].stride() == fused(batch, hx)[0].stride()
    for hx in (None, state()):
        assert close(plain(batch[0], hx), fused(batch[0], hx))


@pytest.mark.parametrize("kind", RECURRENT)
def test_gradients_of_a_recurrence_equal_torchs(kind: str):
    fused, plain = twins(RECURRENT[kind](3, 4, num_layers=2, bidirectional=True))
    grads = []
    for model in (fused, plain):
        x = batch_of(7).requires_grad_()
        packed = pack_padded_sequence(x, torch.tensor([4, 1, 6]), enforce_sorted=False)
        output, last = model(packed)
        (output.data.square().sum() + sum(s.sin().sum() for s in (last if kind == "lstm" else (last,)))).backward()
        grads.append(x.grad)
    assert close(*grads)
    compared = 0
    for name, parameter in fused.named_parameters():
        old = next(start for start in LINEAR if name.startswith(start))
        new, leaf = LINEAR[old]
        assert close(plain.get_parameter(f"{new}{name.removeprefix(old)}.{leaf}").grad, parameter.grad), name
        compared += 1
    assert compared == 2 * 2 * 4 == len(list(plain.parameters()))


def batch_of(seed: int) -> Tensor:
    return torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_between_layers_draws_as_torch_does(batch_first: bool):
    fused, plain = twins(nn.GRU(3, 4, 3, dropout=0.5, batch_first=batch_first))
    outputs = []
    for model in (fused, plain):
        torch.manual_seed(3)
        outputs.append(model(batch_of(0)))
    assert close(*outputs)
    assert not close(plain(batch_of(0)), plain(batch_of(0)))
    plain.eval()
    assert close(plain(batch_of(0)), fused.eval()(batch_of(0)))


def test_wrong_input_and_state_are_refused():
    _, plain = twins(nn.GRU(3, 4))
    with pytest.raises(DissectError, match=r"state must be \(1, 3, 4\), got \(1, 1, 4\)"):
        plain(batch_of(0), torch.zeros(1, 1, 4))  # would broadcast
    with pytest.raises(DissectError, match="2 or 3 dimensions"):
        plain(batch_of(0)[None])


def test_gru_by_hand():
    fused: Any = nn.GRU(1, 1)
    with torch.no_grad():
        for name, value in {"weight_ih_l0": [0, 0, 1], "weight_hh_l0": [0, 0, 1], "bias_ih_l0": [0, 0, 0]}.items():
            getattr(fused, name).copy_(torch.tensor(value).view_as(getattr(fused, name)))
        fused.bias_hh_l0.copy_(torch.tensor([0.0, 0.0, 2.0]))
    unfuse(fused)
    # Both gates are one half: new = tanh(3 + (1 + 2) / 2), h = (new + 1) / 2. With the bias outside the reset gate
    # the tanh would be that of 5.5.
    expected = (torch.tanh(torch.tensor(4.5)) + 1) / 2
    assert fused(torch.tensor([[[3.0]]]), torch.ones(1, 1, 1))[1].item() == pytest.approx(expected.item(), abs=1e-12)


# ---- attention


def masks(batch: int, heads: int, length: int, source: int) -> list[dict[str, Any]]:
    """No mask, and each kind of one; no row of scores is masked throughout."""
    attn = torch.rand(length, source) > 0.6
    attn3 = torch.rand(batch * heads, length, source) > 0.6
    padding = torch.rand(batch, source) > 0.6
    attn[:, 0], attn3[:, :, 0], padding[:, 0] = False, False, False
    found: list[dict[str, Any]] = [{}]
    for a, p in itertools.product((None, attn, attn3), (None, padding)):
        found.append({"attn_mask": a, "key_padding_mask": p})
        found.append({k: None if m is None else m * torch.randn(m.shape) for k, m in found[-1].items()})
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"kdim": 5, "bias": False}], ids=str)
def test_attention_equals_torchs(options: dict[str, Any], batch_first: bool, training: bool):
    fused, plain = twins(nn.MultiheadAttention(8, 2, batch_first=batch_first, **options).train(training))
    key, value = torch.randn(3, 6, options.get("kdim", 8)), torch.randn(3, 6, options.get("vdim", 8))
    query = torch.randn(3, 4, 8)
    if not batch_first:
        query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    for mask in masks(3, 2, 4, 6):
        for weights in ({"need_weights": False}, {}, {"average_attn_weights": False}):
            expected = fused(query, key, value, **mask, **weights)
            found = plain(query, key, value, **mask, **weights)
            assert close(found, expected)
            if not batch_first:
                assert found[0].is_contiguous() == expected[0].is_contiguous()
    query, key, value = torch.randn(4, 8), torch.randn(6, key.shape[-1]), torch.randn(6, value.shape[-1])
    for mask in masks(1, 2, 4, 6):
        if mask.get("key_padding_mask") is not None:
            mask["key_padding_mask"] = mask["key_padding_mask"][0]
        for weights in ({"need_weights": False}, {}, {"average_attn_weights": False}):
            assert close(plain(query, key, value, **mask, **weights), fused(query, key, value, **mask, **weights))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_causal_attention_equals_torchs(padded: bool, need_weights: bool):
    fused, plain = twins(nn.MultiheadAttention(8, 2))
    x = torch.randn(5, 3, 8)
    options: dict[str, Any] = {"need_weights": need_weights, "is_causal": True}
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    if padded:
        options["key_padding_mask"] = torch.tensor([[0.0, 0, 0, 0, -torch.inf]] * 3)
    # The second mask isn't causal: torch trusts the hint where nothing else needs the mask.
    for mask in (causal, torch.randn(5, 5)):
        assert close(plain(x, x, x, attn_mask=mask, **options), fused(x, x, x, attn_mask=mask, **options))
    with pytest.raises(DissectError, match="is_causal"):
        plain(x, x, x, is_causal=True)


def test_a_row_without_any_key_is_as_in_torch():
    fused, plain = twins(nn.MultiheadAttention(8, 2))
    x, mask = torch.randn(5, 3, 8), torch.zeros(5, 5, dtype=torch.bool)
    mask[2] = True
    for need_weights in (False, True):
        expected = fused(x, x, x, attn_mask=mask, need_weights=need_weights)
        assert expected[0][2].isnan().all() == need_weights
        assert close(plain(x, x, x, attn_mask=mask, need_weights=need_weights), expected)


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_gradients_and_dropout_equal_torchs(need_weights: bool):
    fused, plain = twins(nn.MultiheadAttention(8, 2, dropout=0.4))
    grads = []
    for model in (fused, plain):
        torch.manual_seed(5)
        x = torch.randn(5, 3, 8, requires_grad=True)
        output, weights = model(x, x, x, need_weights=need_weights)
        (output.square().sum() + (weights.square().sum() if need_weights else 0)).backward()
        grads.append(x.grad)
    assert close(*grads)
    query, key, value = (plain.get_submodule(name) for name in ("query", "key", "value"))
    assert close(torch.cat([m.weight.grad for m in (query, key, value)]), fused.in_proj_weight.grad)
    assert close(torch.cat([m.bias.grad for m in (query, key, value)]), fused.in_proj_bias.grad)
    assert close(plain.out.weight.grad, fused.out_proj.weight.grad)
    assert not close(plain(x, x, x), plain(x, x, x))
    assert close(plain.eval()(x, x, x), fused.eval()(x, x, x))


def test_wrong_masks_are_refused():
    _, plain = twins(nn.MultiheadAttention(8, 2))
    x = torch.randn(5, 3, 8)
    with pytest.raises(DissectError, match=r"attn_mask must be of shape \(5, 5\) or \(6, 5, 5\), got \(1, 5\)"):
        plain(x, x, x, attn_mask=torch.zeros(1, 5))  # would broadcast
    with pytest.raises(DissectError, match=r"key_padding_mask must be of shape \(3, 5\), got \(1, 5\)"):
        plain(x, x, x, key_padding_mask=torch.zeros(1, 5))
    with pytest.raises(DissectError, match="bools or floats"):
        plain(x, x, x, attn_mask=torch.zeros(5, 5, dtype=torch.uint8))


# ---- inside torch's transformers


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_transformer_layers_equal_torchs(norm_first: bool, batch_first: bool, bias: bool):
    options: dict[str, Any] = {"dropout": 0.0, "norm_first": norm_first, "batch_first": batch_first, "bias": bias}
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    causal = nn.Transformer.generate_square_subsequent_mask(5 if batch_first else 3)
    padding = torch.zeros(*((3, 5) if batch_first else (5, 3)), dtype=torch.bool)
    padding[:, -1] = True
    for training, grad in ((True, True), (False, True), (False, False)):
        fused, plain = twins(nn.TransformerEncoderLayer(8, 2, 12, **options).train(training))
        with torch.set_grad_enabled(grad):
            assert close(plain(x), fused(x))
            assert close(plain(x[0]), fused(x[0]))
            assert close(plain(x, src_key_padding_mask=padding), fused(x, src_key_padding_mask=padding))
            assert close(plain(x, src_mask=causal, is_causal=True), fused(x, src_mask=causal, is_causal=True))
        fused, plain = twins(nn.TransformerDecoderLayer(8, 2, 12, **options).train(training))
        assert len(fuse(copy.deepcopy(plain))) == 2
        with torch.set_grad_enabled(grad):
            masks: dict[str, Any] = {"tgt_mask": causal, "tgt_is_causal": True, "memory_key_padding_mask": padding}
            assert close(plain(x, memory, **masks), fused(x, memory, **masks))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("training", [False, True])
def test_encoder_equals_torchs_where_it_would_take_its_nested_path(training: bool):
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    fused, plain = twins(nn.TransformerEncoder(layer, 2).train(training))
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    assert fused.use_nested_tensor
    with torch.no_grad():
        expected, found = fused(x, src_key_padding_mask=padding), plain(x, src_key_padding_mask=padding)
        assert close(found[~padding], expected[~padding])
        # That path leaves zeros at padded positions.
        assert (expected[padding] == 0).all() != training
        assert (found[padding] != 0).all()
        assert close(plain(x), fused(x))
    with pytest.warns(UserWarning, match="enable_nested_tensor"):  # torch's own, when it builds on a replaced layer
        again = nn.TransformerEncoder(plain.layers[0], 1)
    assert close(again(x), fused.layers[0](x))


def test_whole_transformer_equals_torchs():
    fused, plain = twins(nn.Transformer(8, 2, 2, 2, 12, dropout=0.0, batch_first=True))
    x, y = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    assert close(plain(x, y), fused(x, y))
    assert len([m for m in plain.modules() if isinstance(m, MultiheadAttention)]) == 2 + 2 * 2


# ---- replacing


class Toy(nn.Module):
    """An encoder, and one recurrence under two names and in a plain list."""

    PARTS: ClassVar = {"attention": ["layers.0.self_attn"], "combination": ["gru"]}

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True) for _ in range(2)])
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.again = self.gru
        self.aside = [self.gru]
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        self.gru.flatten_parameters()
        x, _ = self.gru(x)
        x, _ = self.again(x)
        return self.out(self.aside[0](x)[0])


def test_receipt_and_names():
    model = Toy()
    assert unfuse(model, "again") == [Unfused("again", "nn.GRU", "unfuse.GRU", ("again.input_0", "again.hidden_0"))]
    rows = unfuse(model, ["layers.1.self_attn", "layers.*"])
    assert [row.name for row in rows] == ["layers.1.self_attn", "layers.0.self_attn"]
    assert rows[0].linear == tuple(f"layers.1.self_attn.{name}" for name in ("query", "key", "value", "out"))
    assert all(type(model.get_submodule(name)) is nn.Linear for row in rows for name in row.linear)
    assert unfuse(model) == []
    lstm = nn.LSTM(3, 4, 2, bidirectional=True)
    (row,) = unfuse(lstm)
    assert (row.name, type(lstm)) == ("", LSTM)
    assert row.linear == (
        "input_0", "hidden_0", "input_0_reverse", "hidden_0_reverse",
        "input_1", "hidden_1", "input_1_reverse", "hidden_1_reverse",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["out", "nothing", "layers", "layers.0.linear?", ""])
def test_a_name_without_a_fused_module_is_refused(name: str):
    model = Toy()
    with pytest.raises(DissectError) as error:
        unfuse(model, ["gru", name])
    assert str(error.value) == (
        f"{name!r} matches no fused module; those that can be unfused: "
        "'layers.0.self_attn', 'layers.1.self_attn', 'gru', 'again'"
    )
    assert type(model.gru) is nn.GRU  # nothing was changed


class Own(nn.GRU):
    pass


def weight_dropped() -> nn.Module:
    gru: Any = nn.GRU(2, 2)
    raw = gru.weight_hh_l0
    del gru.weight_hh_l0
    gru.weight_hh_l0 = raw.detach() * 2
    return gru


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), "bias_k"),
        (lambda: nn.MultiheadAttention(4, 2, add_zero_attn=True), "add_zero_attn"),
        (lambda: nn.LSTM(4, 4, proj_size=2), "weight_hr_l0"),
        (lambda: Own(2, 2), "Own is a subclass"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.GRU(2, 2), "weight_hh_l0"), "ParametrizedGRU"),
        (weight_dropped, "weight_hh_l0"),
    ],
)
def test_what_cannot_be_unfused_is_refused_before_anything_changes(odd: Callable[[], nn.Module], why: str):
    model = nn.ModuleDict({"fine": nn.GRU(2, 2), "odd": odd()})
    for names in (None, "*", "odd"):
        with pytest.raises(DissectError, match=f"'odd' can't be unfused: .*{why}.*; those that can: 'fine'$"):
            unfuse(model, names)
    assert type(model["fine"]) is nn.GRU
    assert unfuse(model, "fine")


def test_shared_packed_weights_are_refused_and_shared_matrices_stay_shared():
    model = nn.ModuleList([nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2)])
    model[1].in_proj_weight = model[0].in_proj_weight
    with pytest.raises(DissectError, match="'in_proj_weight' is shared"):
        unfuse(model, "0")
    grus = nn.ModuleList([nn.GRU(4, 4), nn.GRU(4, 4)])
    grus[1].weight_hh_l0 = grus[0].weight_hh_l0
    unfuse(grus)
    assert grus[0].hidden_0.weight is grus[1].hidden_0.weight  # pyright: ignore
    fuse(grus)
    assert grus[0].weight_hh_l0 is grus[1].weight_hh_l0


def test_a_shared_module_is_one_module_everywhere():
    dense, model = Toy(), Toy()
    model.load_state_dict(dense.state_dict())
    x = torch.randn(3, 5, 4)
    before = model.gru
    assert [row.name for row in unfuse(model)] == ["layers.0.self_attn", "layers.1.self_attn", "gru"]
    assert model.gru is model.again is model.aside[0] is before
    assert isinstance(model.gru, GRU)
    assert close(model(x), dense(x))


def test_same_parameters_and_state_and_no_random_number():
    torch.manual_seed(1)
    model = nn.ModuleDict({"gru": nn.GRU(2, 3, dtype=torch.float32), "attn": nn.MultiheadAttention(4, 2).half()})
    gru: Any = model["gru"].eval()
    attn: Any = model["attn"]
    gru.tag = "kept"
    gru.weight_hh_l0.requires_grad_(False)
    attn.in_proj_bias.requires_grad_(False)
    seen = []
    handle = gru.register_forward_hook(lambda module, args, output: seen.append(module))
    weight, packed = gru.weight_ih_l0, attn.in_proj_weight.detach().clone()
    rng = torch.get_rng_state()
    unfuse(model)
    assert gru.input_0.weight is weight
    assert (gru.hidden_0.weight.requires_grad, gru.hidden_0.bias.requires_grad) == (False, True)
    assert (gru.training, gru.input_0.training, attn.training) == (False, False, True)
    assert gru(torch.zeros(5, 1, 2, dtype=torch.float32))[0].dtype == torch.float32
    assert (seen, gru.tag) == ([gru], "kept")
    assert torch.equal(torch.cat([attn.query.weight, attn.key.weight, attn.value.weight]), packed)
    assert attn.key.weight.dtype == torch.float16
    assert attn.key.weight.untyped_storage().size() == 4 * 4 * 2  # no view of the packed matrix
    assert [attn.key.bias.requires_grad, attn.key.weight.requires_grad] == [False, True]
    handle.remove()
    fuse(model)
    assert torch.equal(torch.get_rng_state(), rng)
    assert (gru.training, gru.tag, gru.weight_ih_l0 is weight) == (False, "kept", True)
    assert [attn.in_proj_bias.requires_grad, attn.in_proj_weight.requires_grad] == [False, True]
    assert attn.in_proj_weight.dtype == torch.float16


# ---- wrapped


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_wrapped_equals_dense_at_the_start_and_masks_are_not_bypassed(noise: str):
    dense = Toy().eval()
    model = copy.deepcopy(dense)
    unfuse(model)
    probe = wrap(model, Toy.PARTS, examples=100, steps=10, noise=noise)
    assert [row.module for row in probe.receipt] == [
        *(f"layers.0.self_attn.{name}" for name in ("query", "key", "value", "out")), "gru.input_0", "gru.hidden_0",
    ]  # fmt: skip
    x = torch.randn(3, 5, 4)
    for grad in (True, False):  # without gradients torch would take its fused path
        with torch.set_grad_enabled(grad):
            assert close(model(x), dense(x))
    assert probe.check_dead(lambda: model(x)) == []
    with torch.no_grad():
        for _, _, s in named_variational(model):
            s.uniform_(-8, 6)
    model.train()
    assert not close(model(x), model(x))
    model.eval()
    exported = probe.export()
    kept, total = probe.prune_counts()
    assert 0 < kept < total
    with torch.no_grad(), probe.masked():
        masked = model(x)
    assert not close(masked, dense(x))
    assert close(masked, exported(x))
    assert fuse(exported) == ["layers.0.self_attn", "layers.1.self_attn", "gru"]
    assert close(masked, exported(x))
    exported.load_state_dict(dense.state_dict())  # the user's own classes and names again


@pytest.mark.parametrize("kind", RECURRENT)
def test_shared_weight_noise_is_one_draw_for_the_whole_sequence(kind: str):
    dense, model = twins(RECURRENT[kind](3, 4))
    wrap(model, {"all": ["input_0", "hidden_0"]}, examples=1, steps=1, noise="weight", log_sigma2=-2.0)
    x = batch_of(0)
    with shared_noise(model):
        noisy = model(x)
        assert close(model(x), noisy)
        layers = {name: getattr(model, name) for name in ("input_0", "hidden_0")}
        drawn = {name: layer._shared[id(layer.weight)] for name, layer in layers.items()}
    assert not close(model(x), noisy)
    # Torch's own module with the drawn weights gives the same at every step.
    assert not torch.allclose(drawn["hidden_0"], dense.weight_hh_l0, atol=0.01)
    with torch.no_grad():
        dense.weight_ih_l0.copy_(drawn["input_0"])
        dense.weight_hh_l0.copy_(drawn["hidden_0"])
    assert close(noisy, dense(x))


def test_without_sharing_every_step_draws_anew():
    model = nn.RNN(1, 1, nonlinearity="relu", bias=False)
    unfuse(model)
    assert isinstance(model, RNN)
    wrap(model, {"all": ["hidden_0"]}, examples=1, steps=1, noise="weight")
    with torch.no_grad():
        model.input_0.weight.fill_(0.0)  # pyright: ignore
        model.hidden_0.weight.fill_(1.0)  # pyright: ignore
    ones, zeros = torch.ones(1, 1, 1), torch.zeros(4, 1, 1)
    h = model(zeros, ones)[0].flatten()  # each step multiplies by the weight it drew
    ratios = h / torch.cat([ones.flatten(), h[:-1]])
    assert ratios.unique().numel() == 4
    with shared_noise(model):
        h = model(zeros, ones)[0].flatten()
    assert close(h, h[0] ** torch.arange(1, 5))


# ---- checkpoints, and the way back


def zoo() -> nn.ModuleDict:
    model = nn.ModuleDict({
        "gru": nn.GRU(3, 4, 2, bidirectional=True),
        "lstm": nn.LSTM(3, 4, bias=False),
        "rnn": nn.RNN(3, 4, nonlinearity="relu", batch_first=True),
        "packed": nn.MultiheadAttention(8, 2),
        "apart": nn.MultiheadAttention(8, 2, kdim=5, vdim=3, bias=False, batch_first=True),
        "layer": nn.TransformerEncoderLayer(8, 2, 12, 0.0),
    })  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def outputs(model: nn.ModuleDict) -> list[Any]:
    g = torch.Generator().manual_seed(0)
    x, y, k, v = (torch.randn(5, 3, n, generator=g) for n in (3, 8, 5, 3))
    recurrent = [model[name](x) for name in ("gru", "lstm", "rnn")]
    return [*recurrent, model["packed"](y, y, y), model["apart"](y, k, v), model["layer"](y)]


@pytest.mark.parametrize("assign", [False, True])
def test_checkpoints_of_the_fused_model_load(assign: bool):
    fused, model, wrapped = zoo(), zoo(), zoo()
    unfuse(model)
    unfuse(wrapped)
    wrap(wrapped, {"all": ["*"]}, examples=1, steps=1)
    state = fused.state_dict()
    before = dict(state)
    for plain in (model, wrapped.eval()):
        result = plain.load_state_dict(state, assign=assign)
        assert (result.missing_keys, result.unexpected_keys) == ([], [])
        assert all(close(a, b) for a, b in zip(outputs(plain), outputs(fused), strict=True))
    assert state.keys() == before.keys()
    other = zoo()
    unfuse(other)
    other.load_state_dict(model.state_dict())  # its own as well
    assert all(close(a, b) for a, b in zip(outputs(other), outputs(fused), strict=True))
    for gone in ("gru.weight_hh_l1_reverse", "packed.in_proj_bias"):
        with pytest.raises(RuntimeError, match=r"gru.hidden_1_reverse.weight|packed.query.bias"):
            model.load_state_dict({name: value for name, value in state.items() if name != gone})
    with pytest.raises(RuntimeError, match=r"size mismatch for packed\.query\.bias"):
        model.load_state_dict({**state, "packed.in_proj_bias": torch.zeros(2)})
    with pytest.raises(RuntimeError, match="weight_ih_l7"):
        model.load_state_dict({**state, "gru.weight_ih_l7": torch.zeros(1)})


def test_round_trip():
    fused, model = zoo(), zoo().eval()
    model.load_state_dict(fused.state_dict())
    rows = unfuse(model)
    model = copy.deepcopy(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    model = torch.load(buffer, weights_only=False)
    assert fuse(model) == [row.name for row in rows] == ["gru", "lstm", "rnn", "packed", "apart", "layer.self_attn"]
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in fused.named_modules()]
    assert not any(m.training for m in model.modules())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in fused.named_parameters()]
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in fused.state_dict().items())
    for training in (True, False):
        model.train(training)
        fused.train(training)
        for a, b in zip(outputs(model), outputs(fused), strict=True):
            assert torch.equal(a[0], b[0])
            assert close(a, b)
    copy.deepcopy(model).float()["gru"](torch.zeros(2, 3, dtype=torch.float32))
    assert repr(model) == repr(fused)
    assert fuse(model) == []


def test_what_cannot_be_fused_is_refused_before_anything_changes():
    model = nn.ModuleDict({"gru": nn.GRU(2, 2), "attn": nn.MultiheadAttention(4, 2)})
    unfuse(model)
    wrap(model, {"all": ["attn.key"]}, examples=1, steps=1)
    with pytest.raises(DissectError, match=r"'attn' can't be fused: 'key\.log_sigma2' .* export\(\) first"):
        fuse(model)
    assert isinstance(model["gru"], GRU)
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2)})
    unfuse(model)
    attn: Any = model["attn"]
    attn.key.weight = attn.query.weight
    with pytest.raises(DissectError, match="is shared"):
        fuse(model)


def test_example_of_the_docstring():
    result = doctest.testmod(sys.modules["dissect.sparsity.unfuse"])
    assert result.attempted > 4
    assert result.failed == 0
