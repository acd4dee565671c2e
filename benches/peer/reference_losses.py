"""Trains with the reference's mathematics from given weights on given shards, and prints the losses.

    python reference_losses.py --init init.safetensors --data 'data/*_train_*.bin' --steps 20

One JSON line a step, with the names of pg's metrics.jsonl. Run pg with the same --init, --data, --steps,
--batch-tokens, --seq-len, --set and --schedule spec, then hold the two against each other:

    python reference_losses.py … --compare runs/int4mlp_12l-0/metrics.jsonl

Without --init it begins from weights of its own, which --save-init writes for pg's --init.
"""

import argparse
import dataclasses
import glob
import json
import math
import pathlib
import sys

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import stack


class Tokens:
    """Shards as one endless stream: a micro-batch takes its tokens and one more."""

    def __init__(self, pattern: str):
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise ValueError(f"no shard matches `{pattern}`")
        self.stream = np.concatenate([self.shard(path) for path in paths])
        self.cursor = 0

    @staticmethod
    def shard(path: str) -> np.ndarray:
        header = np.fromfile(path, "<i4", 256)
        tokens = np.fromfile(path, "<u2", offset=1024)
        if len(header) < 256 or header[0] != 20240520 or header[1] != 1 or header[2] != len(tokens):
            raise ValueError(f"{path}: not a token shard, or not a whole one")
        return tokens

    def batch(self, tokens: int, seq: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = (self.cursor + np.arange(tokens + 1)) % len(self.stream)
        self.cursor = (self.cursor + tokens + 1) % len(self.stream)
        taken = torch.from_numpy(self.stream[at].astype(np.int64))
        return taken[:-1].view(-1, seq), taken[1:].view(-1, seq)


def override(targets: list, text: str) -> None:
    """Sets the field that a model file's constant `NAME=VALUE` stands for."""
    name, _, value = text.partition("=")
    for target in targets:
        field = name.strip().lower()
        if field in {f.name for f in dataclasses.fields(target)}:
            old = getattr(target, field)
            if isinstance(old, str):
                new = value.strip('" ')
            elif isinstance(old, bool):
                new = {"true": True, "false": False}[value.strip()]
            else:
                new = json.loads(value)
                new = tuple(new) if isinstance(old, tuple) else type(old)(new)
            setattr(target, field, new)
            return
    raise ValueError(f"no constant `{name}`")


def compare(losses: list[float], path: str) -> None:
    """Prints how far another run's losses are from these."""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    other = {line["step"]: line["loss"] for line in lines}
    apart = [abs(other[step] - loss) for step, loss in enumerate(losses) if step in other]
    if not apart:
        raise ValueError(f"{path}: no step in common")
    print(
        json.dumps({"compared": len(apart), "max_first_4": max(apart[:4]), "max_first_20": max(apart[:20]), "max": max(apart)})
    )


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--init", help="safetensors file with the model file's names, matrices by themselves")
    a.add_argument("--save-init", help="write the weights that training begins from")
    a.add_argument("--seed", type=int, default=42, help="of the weights where there is no --init")
    a.add_argument("--data", required=True, help="pattern of the token shards")
    a.add_argument("--steps", type=int, default=20)
    a.add_argument("--batch-tokens", type=int, default=2048)
    a.add_argument("--micro-batch-tokens", type=int, help="default: the whole batch")
    a.add_argument("--seq-len", type=int, default=512)
    a.add_argument("--warmdown-steps", type=int, default=3500, help="rate falls over the last steps; 0: constant")
    a.add_argument("--no-qat", action="store_true", help="as --set MLP_CLIP=0 --set ATTN_CLIP=0")
    a.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of the model file")
    a.add_argument("--dtype", choices=("f32", "f64"), default="f32")
    a.add_argument("--compare", metavar="METRICS", help="another run's metrics.jsonl")
    a = a.parse_args()

    m, o = stack.Model(), stack.Optim()
    for text in a.set:
        override([m, o], text)
    if a.no_qat:
        m.mlp_clip = m.attn_clip = 0
    micro = min(a.micro_batch_tokens or a.batch_tokens, a.batch_tokens)
    if a.batch_tokens % micro or micro % a.seq_len:
        raise ValueError("--batch-tokens must be whole micro-batches, and these whole sequences")
    dtype = {"f32": torch.float32, "f64": torch.float64}[a.dtype]
    tokens = Tokens(a.data)
    start = stack.join_banks(m, load_file(a.init)) if a.init else stack.initial(m, a.seed)
    if a.save_init:
        save_file(stack.split_banks(m, {k: v.float() for k, v in start.items()}), a.save_init)
    p = {name: value.to(dtype).requires_grad_() for name, value in start.items()}
    optimiser = stack.Optimiser(o, p)

    losses = []
    for step in range(a.steps):
        lr_scale = min(1.0, (a.steps - step) / a.warmdown_steps) if a.warmdown_steps else 1.0
        parts = a.batch_tokens // micro
        grads = {name: torch.zeros_like(value) for name, value in p.items()}
        loss = 0.0
        for _ in range(parts):
            part = stack.nll(m, p, *tokens.batch(micro, a.seq_len), dtype).mean()
            for total, g in zip(grads.values(), torch.autograd.grad(part, list(p.values()), allow_unused=True)):
                if g is not None:
                    total.add_(g, alpha=1 / parts)
            loss += part.item() / parts
        norm = optimiser.step(grads, lr_scale).item()
        losses.append(loss)
        print(json.dumps({"step": step, "loss": loss, "lr_scale": lr_scale, "grad_norm": norm}), flush=True)
        if not math.isfinite(loss):
            raise ValueError(f"the loss of step {step} is {loss}")
    if a.compare:
        compare(losses, a.compare)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        sys.exit(f"error: {error}")
