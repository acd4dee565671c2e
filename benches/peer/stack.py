"""The int4-MLP / int6-attention stack in PyTorch, as someone who knows PyTorch would write it.

The same mathematics as pg's models/int4mlp_12l.rs, with the library's attention and norms. `peer.py` times it,
`reference_losses.py` trains with it, `check.py` holds it against the fixtures in tests/fixtures. Weights are
[out, in]; matrices of one shape are kept in banks, so that Newton-Schulz runs batched.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = torch.finfo(torch.float32).eps  # of every norm, whatever the type


@dataclasses.dataclass
class Model:
    """Constants of the architecture; in capitals, they are those of the model file."""

    vocab: int = 1024
    layers: int = 12
    dim: int = 512
    heads: int = 8
    kv_heads: int = 4
    mlp_mult: float = 3.0
    leaky_slope: float = 0.5
    rope_dims: int = 16
    rope_base: float = 10_000.0
    rope_train_len: int = 1024
    qk_gain: float = 1.5
    logit_softcap: float = 30.0
    bigram_buckets: int = 2048
    bigram_dim: int = 128
    ve_dim: int = 128
    ve_layers: tuple[int, ...] = (9, 10)
    xsa_last: int = 4
    ln_scale: bool = True
    tied_embed_std: float = 0.005
    mlp_clip: int = 7  # 0: no quantiser
    attn_clip: int = 31
    scale_rule: str = "amax"  # or "floored"

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        return math.floor(self.mlp_mult * self.dim)

    @property
    def encoder_layers(self) -> int:
        return self.layers // 2


@dataclasses.dataclass
class Optim:
    """Constants of the optimisers."""

    matrix_lr: float = 0.025
    scalar_lr: float = 0.025
    token_lr: float = 0.035
    muon_momentum: float = 0.99
    muon_momentum_start: float = 0.92
    muon_momentum_warmup_steps: int = 1500
    muon_wd: float = 0.04
    ns_steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    adam_wd: float = 0.04
    grad_clip: float = 0.3
    ema_decay: float = 0.997


TABLES = ("tok_emb.weight", "bigram.embed.weight", "ve_shared.embed.weight")

# Each bank, and the names of its matrices for layer i: all layers of the first, then of the second.
BANKS = {
    "qo_bank": ("blocks.{i}.attn.c_q.weight", "blocks.{i}.attn.proj.weight"),
    "kv_bank": ("blocks.{i}.attn.c_k.weight", "blocks.{i}.attn.c_v.weight"),
    "mlp_up_bank": ("blocks.{i}.mlp.fc.weight",),
    "mlp_down_bank": ("blocks.{i}.mlp.proj.weight",),
}


def shapes(m: Model) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter, matrices in banks."""
    layers, dim = m.layers, m.dim
    out: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (m.vocab, dim),
        "bigram.embed.weight": (m.bigram_buckets, m.bigram_dim),
        "bigram.proj.weight": (dim, m.bigram_dim),
        "bigram.scale": (),
        "smear.gate": (dim,),
        "skip_weights": (min(m.encoder_layers, layers - m.encoder_layers), dim),
        "qo_bank": (2 * layers, dim, dim),
        "kv_bank": (2 * layers, m.kv_dim, dim),
        "mlp_up_bank": (layers, m.mlp_dim, dim),
        "mlp_down_bank": (layers, dim, m.mlp_dim),
    }
    for i in range(layers):
        out[f"blocks.{i}.attn.q_gain"] = (m.heads,)
        out[f"blocks.{i}.attn_scale"] = (dim,)
        out[f"blocks.{i}.mlp_scale"] = (dim,)
        out[f"blocks.{i}.resid_mix"] = (2, dim)
    if m.ve_layers:
        out["ve_shared.embed.weight"] = (m.vocab, m.ve_dim)
        out["ve_shared.proj.weight"] = (m.kv_dim, m.ve_dim)
        out["ve_shared.scale"] = ()
        for j in range(len(m.ve_layers)):
            out[f"ve_layer_scales.{j}"] = (1,)
    return out


def initial(m: Model, seed: int) -> dict[str, Tensor]:
    """The initialisation of the original in float32 (not its random numbers)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def orthogonal(rows: int, cols: int) -> Tensor:
        q, r = torch.linalg.qr(normal(max(rows, cols), min(rows, cols)))
        q = q * r.diagonal().sign()
        return q if rows >= cols else q.T.contiguous()

    constants = {"bigram.scale": 0.05, "ve_shared.scale": 0.1, "smear.gate": 0.0, "bigram.embed.weight": 0.0}
    p = {}
    for name, shape in shapes(m).items():
        if name in BANKS:
            zero = range(m.layers, 2 * m.layers) if name == "qo_bank" else range(shape[0] if name == "mlp_down_bank" else 0)
            p[name] = torch.stack([torch.zeros(shape[1:]) if i in zero else orthogonal(*shape[1:]) for i in range(shape[0])])
        elif name == "tok_emb.weight":
            p[name] = normal(*shape) * m.tied_embed_std
        elif name == "ve_shared.embed.weight":
            p[name] = normal(*shape) * 0.01
        elif name.endswith("proj.weight"):
            p[name] = orthogonal(*shape) if min(shape) >= 64 else torch.zeros(shape)
        elif name.endswith("q_gain"):
            p[name] = torch.full(shape, m.qk_gain)
        elif name.endswith("resid_mix"):
            p[name] = torch.tensor([[1.0], [0.0]]).repeat(1, m.dim)
        else:
            p[name] = torch.full(shape, constants.get(name, 1.0))
    return p


def split_banks(m: Model, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under the model file's names, every matrix by itself."""
    out = {}
    for name, value in p.items():
        if name not in BANKS:
            out[name] = value.contiguous()
            continue
        for part, pattern in enumerate(BANKS[name]):
            for i in range(m.layers):
                out[pattern.format(i=i)] = value[part * m.layers + i].contiguous()
    return out


def join_banks(m: Model, split: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_banks`. Raises ValueError for what is missing, misshapen or unknown."""
    rest = dict(split)

    def take(name: str) -> Tensor:
        if name not in rest:
            raise ValueError(f"the weights have no `{name}`")
        return rest.pop(name)

    p = {}
    for name, shape in shapes(m).items():
        if name in BANKS:
            p[name] = torch.stack([take(pattern.format(i=i)) for pattern in BANKS[name] for i in range(m.layers)])
        else:
            p[name] = take(name)
        if p[name].shape != shape:
            raise ValueError(f"`{name}` is {tuple(p[name].shape)}, the model's is {shape}")
    if rest:
        raise ValueError(f"the model has no `{next(iter(rest))}`")
    return p


def fake_quantize(w: Tensor, clip: int, rule: str) -> Tensor:
    """Rows rounded to `clip` steps either way; the gradient goes straight through."""
    if clip == 0:
        return w
    with torch.no_grad():
        amax = w.abs().amax(dim=-1, keepdim=True)
        scale = amax / clip
        scale = scale.clamp_min(1 / clip) if rule == "floored" else torch.where(amax > 0, scale, 1.0)
        rounded = (w / scale).round().clamp(-clip, clip) * scale
    return w + (rounded - w).detach()


def bigram_bucket(tokens: Tensor, buckets: int) -> Tensor:
    """Hash of each token and the one before it; the last bucket where there is none."""
    hashed = (36313 * tokens[:, 1:] ^ 27191 * tokens[:, :-1]) % (buckets - 1)
    return F.pad(hashed, (1, 0), value=buckets - 1)


def rope_tables(m: Model, seq: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [seq, 1, rope_dims / 2]; past the training length the base is stretched."""
    base = m.rope_base
    if seq > m.rope_train_len:
        base *= (seq / m.rope_train_len) ** (m.rope_dims / (m.rope_dims - 2))
    pairs = torch.arange(0, m.rope_dims, 2, dtype=torch.float64) / m.rope_dims
    angle = torch.outer(torch.arange(seq, dtype=torch.float64), base**-pairs)[:, None]
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


def nll(m: Model, p: dict[str, Tensor], tokens: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Negative log-likelihood of each target in nats, [batch, seq]; parameters are cast to `dtype` where used."""
    batch, seq = tokens.shape
    attn = {b: fake_quantize(p[b], m.attn_clip, m.scale_rule).to(dtype).unbind() for b in ("qo_bank", "kv_bank")}
    mlp = {b: fake_quantize(p[b], m.mlp_clip, m.scale_rule).to(dtype).unbind() for b in ("mlp_up_bank", "mlp_down_bank")}
    w = {name: value.to(dtype) for name, value in p.items() if name not in BANKS}
    cos, sin = rope_tables(m, seq, tokens.device, dtype)

    bigram = F.linear(w["bigram.embed.weight"][bigram_bucket(tokens, m.bigram_buckets)], w["bigram.proj.weight"])
    x = norm(w["tok_emb.weight"][tokens] + bigram * w["bigram.scale"])
    gate = w["smear.gate"].sigmoid()
    x = x0 = (1 - gate) * x + gate * F.pad(x, (0, 0, 1, 0))[:, :-1]
    if m.ve_layers:
        ve = F.linear(w["ve_shared.embed.weight"][tokens], w["ve_shared.proj.weight"]) * w["ve_shared.scale"]

    skips = []
    for i in range(m.layers):
        if i >= m.encoder_layers and skips:
            x = x + w["skip_weights"][i - m.encoder_layers] * skips.pop()
        depth = (i + 1) ** -0.5 if m.ln_scale else 1.0
        mix = w[f"blocks.{i}.resid_mix"]
        x = mix[0] * x + mix[1] * x0

        h = norm(x) * depth
        q = F.linear(h, attn["qo_bank"][i]).view(batch, seq, m.heads, m.head_dim)
        k = F.linear(h, attn["kv_bank"][i]).view(batch, seq, m.kv_heads, m.head_dim)
        v = F.linear(h, attn["kv_bank"][m.layers + i])
        if i in m.ve_layers:
            v = v + ve * w[f"ve_layer_scales.{m.ve_layers.index(i)}"]
        v = v.view(batch, seq, m.kv_heads, m.head_dim)
        q = rope(norm(q), cos, sin) * w[f"blocks.{i}.attn.q_gain"][:, None]
        k = rope(norm(k), cos, sin)
        heads = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True).transpose(1, 2)
        if i >= m.layers - m.xsa_last:
            unit = F.normalize(v, dim=-1)[:, :, :, None]
            grouped = y.reshape(batch, seq, m.kv_heads, -1, m.head_dim)
            y = grouped - (grouped * unit).sum(-1, keepdim=True) * unit
        y = F.linear(y.reshape(batch, seq, m.dim), attn["qo_bank"][m.layers + i])
        x = x + w[f"blocks.{i}.attn_scale"] * y

        h = F.linear(norm(x) * depth, mlp["mlp_up_bank"][i])
        h = F.linear(F.leaky_relu(h, m.leaky_slope).square(), mlp["mlp_down_bank"][i])
        x = x + w[f"blocks.{i}.mlp_scale"] * h
        if i < m.encoder_layers:
            skips.append(x)
    z = F.linear(norm(x), w["tok_emb.weight"])
    z = m.logit_softcap * torch.tanh(z / m.logit_softcap)
    wide = torch.promote_types(dtype, torch.float32)
    return F.cross_entropy(z.to(wide).flatten(0, 1), targets.flatten(), reduction="none").view(batch, seq)


def newton_schulz(g: Tensor, steps: int) -> Tensor:
    """Each matrix of g [n, rows, cols] made nearly orthogonal."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimiser:
    """Clip, Muon for the banks, AdamW for the rest, and the running average: one whole update."""

    def __init__(self, o: Optim, p: dict[str, Tensor], ns_dtype: torch.dtype | None = None):
        self.o, self.p = o, p
        self.ns_dtype = ns_dtype
        self.small = [name for name in p if name not in BANKS]
        self.momentum = {name: torch.zeros_like(p[name]) for name in BANKS}
        self.mean = [torch.zeros_like(p[name]) for name in self.small]
        self.var = [torch.zeros_like(p[name]) for name in self.small]
        self.ema = {name: value.detach().clone() for name, value in p.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, grads: dict[str, Tensor], lr_scale: float) -> Tensor:
        """Updates the parameters in place; gives the gradient norm before clipping."""
        o = self.o
        every = list(grads.values())
        norm = torch.stack(torch._foreach_norm(every)).norm()
        torch._foreach_mul_(every, (o.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        warm = min(self.steps / o.muon_momentum_warmup_steps, 1.0) if o.muon_momentum_warmup_steps else 1.0
        momentum = (1 - warm) * o.muon_momentum_start + warm * o.muon_momentum
        for name in BANKS:
            w, g, lr = self.p[name], grads[name], o.matrix_lr * lr_scale
            buffer = self.momentum[name].mul_(momentum).add_(g)
            update = g.add(buffer, alpha=momentum).to(self.ns_dtype or g.dtype)
            update = newton_schulz(update, o.ns_steps).to(g.dtype)
            stretch = max(1.0, w.shape[-2] / w.shape[-1]) ** 0.5
            w.mul_(1 - lr * o.muon_wd).add_(update, alpha=-lr * stretch)
        self.steps += 1
        self._adam([grads[name] for name in self.small], lr_scale)
        torch._foreach_lerp_(list(self.ema.values()), list(self.p.values()), 1 - o.ema_decay)
        return norm

    def _adam(self, grads: list[Tensor], lr_scale: float) -> None:
        o = self.o
        torch._foreach_lerp_(self.mean, grads, 1 - o.beta1)
        torch._foreach_mul_(self.var, o.beta2)
        torch._foreach_addcmul_(self.var, grads, grads, 1 - o.beta2)
        denominator = torch._foreach_div(self.var, 1 - o.beta2**self.steps)
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, o.adam_eps)
        for name, mean, denom in zip(self.small, self.mean, denominator):
            lr = (o.token_lr if name in TABLES else o.scalar_lr) * lr_scale
            w = self.p[name]
            w.mul_(1 - lr * o.adam_wd).addcdiv_(mean, denom, value=-lr / (1 - o.beta1**self.steps))
