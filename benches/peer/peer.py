"""Times one whole training step of the stack in PyTorch: forward, backward, clip, Muon, AdamW, average.

    python peer.py --mode compile --dtype bf16

Prints one JSON line with the median milliseconds a step. Runs on CUDA where there is a device.
"""

import argparse
import json
import resource
import statistics
import time

import torch

import stack

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--mode", choices=("eager", "compile"), default="eager")
    a.add_argument("--dtype", choices=DTYPES, default="f32", help="of activations and matmul operands")
    a.add_argument("--ns-dtype", choices=DTYPES, default="f32", help="of Newton-Schulz (PR #910: bf16)")
    a.add_argument("--no-qat", action="store_true")
    a.add_argument("--batch", type=int, default=4)
    a.add_argument("--seq-len", type=int, default=512)
    a.add_argument("--layers", type=int, default=12)
    a.add_argument("--steps", type=int, default=5, help="timed, after two that are not")
    a.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    a.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    a = a.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    started = time.perf_counter()
    m = stack.Model(layers=a.layers, ve_layers=(a.layers - 3, a.layers - 2))
    if a.no_qat:
        m.mlp_clip = m.attn_clip = 0
    p = {name: value.to(a.device).requires_grad_() for name, value in stack.initial(m, 0).items()}
    optimiser = stack.Optimiser(stack.Optim(), p, DTYPES[a.ns_dtype])
    dtype = DTYPES[a.dtype]

    def loss_of(x, y):
        return stack.nll(m, p, x, y, dtype).mean()

    if a.mode == "compile":
        loss_of = torch.compile(loss_of, dynamic=False, fullgraph=True)
    tokens = torch.randint(m.vocab, (2, a.batch, a.seq_len), generator=torch.Generator().manual_seed(0)).to(a.device)
    synchronise = torch.cuda.synchronize if a.device == "cuda" else lambda: None

    times, cpu, first = [], [], 0.0
    for step in range(a.steps + 2):
        synchronise()
        begin, begin_cpu = time.perf_counter(), time.process_time()
        loss = loss_of(*tokens)
        grads = dict(zip(p, torch.autograd.grad(loss, list(p.values()))))
        optimiser.step(grads, 1.0)
        del grads
        loss = loss.item()
        synchronise()
        times.append(1e3 * (time.perf_counter() - begin))
        cpu.append(1e3 * (time.process_time() - begin_cpu))
        if step == 0:
            first = time.perf_counter() - started
    timed = times[2:]
    ms = statistics.median(timed)
    print(
        json.dumps(
            {
                "ms_per_step": round(ms, 2),
                "ms_min": round(min(timed), 2),
                "ms_max": round(max(timed), 2),
                # Of all threads: far more than threads x ms_per_step cannot be; far less is a busy machine.
                "cpu_ms_per_step": round(statistics.median(cpu[2:]), 2),
                "tokens_per_s": round(a.batch * a.seq_len / ms * 1e3),
                "first_step_s": round(first, 2),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "mode": a.mode,
                "dtype": a.dtype,
                "ns_dtype": a.ns_dtype,
                "qat": not a.no_qat,
                "batch": a.batch,
                "seq_len": a.seq_len,
                "layers": a.layers,
                "device": torch.cuda.get_device_name() if a.device == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "loss": loss,
            }
        )
    )


if __name__ == "__main__":
    main()
