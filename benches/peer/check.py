"""Holds stack.py against the cases in tests/fixtures: losses, gradients, three optimiser steps.

    python check.py [FIXTURES]
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

import stack


def config(kind, values):
    known = {f.name for f in stack.dataclasses.fields(kind)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})


def strip(tensors, prefix):
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def distance(got, want):
    """Largest relative distance (norm of the difference over the norm) of any tensor."""
    return max(float((got[k].detach() - w).norm() / w.norm().clamp_min(1e-6)) for k, w in want.items())


def gradient(m, case, tensors):
    p = {k: v.requires_grad_() for k, v in strip(tensors, "param.").items()}
    nll = stack.nll(m, p, tensors["x"].long(), tensors["y"].long(), torch.float32)
    grads = torch.autograd.grad(nll.mean(), list(p.values()), allow_unused=True)
    grads = {k: torch.zeros_like(p[k]) if g is None else g for k, g in zip(p, grads)}
    yield "nll", float((nll.detach() - tensors["nll"]).abs().max()), case["tolerance"]["nll"]
    yield "grad", distance(grads, strip(tensors, "grad.")), case["tolerance"]["grad"]


def optimiser(m, case, tensors):
    p = {k: v.requires_grad_() for k, v in strip(tensors, "param.").items()}
    o = stack.Optimiser(config(stack.Optim, case["optim"]), p)
    scales = case.get("lr_scale", [1.0] * case["steps"])
    for step in range(case["steps"]):
        x, y = tensors[f"x.{step}"].long(), tensors[f"y.{step}"].long()
        loss = stack.nll(m, p, x, y, torch.float32).mean()
        o.step(dict(zip(p, torch.autograd.grad(loss, list(p.values())))), scales[step])
    tolerance = max(v for v in case["tolerance"].values())
    yield "after", distance(p, strip(tensors, "after.")), tolerance
    yield "ema", distance(o.ema, strip(tensors, "ema.")), tolerance


def main() -> None:
    here = pathlib.Path(__file__).parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "../../tests/fixtures"
    checks = {"gradient": gradient, "optimiser": optimiser}
    failed = checked = 0
    for path in sorted(folder.glob("*/case.json")):
        case = json.loads(path.read_text())
        if case["kind"] not in checks:
            continue
        tensors = load_file(path.with_name("tensors.safetensors"))
        for what, error, tolerance in checks[case["kind"]](config(stack.Model, case["model"]), case, tensors):
            checked += 1
            failed += not error <= tolerance
            print(f"{'ok  ' if error <= tolerance else 'FAIL'} {path.parent.name:24} {what:6} {error:.1e} (at most {tolerance:.0e})")
    if failed or not checked:
        sys.exit(f"{failed} of {checked} checks failed")


if __name__ == "__main__":
    main()
