"""Train the network on the shards of a work folder, one after another, each seen once.

    python -m assets.recipe.train WORK --minutes 70 [--resume] [--rate 0.02] [--length 512] [--batch 16]

Reads WORK/shard-*.npz in the order of their seeds; new ones may appear meanwhile. Writes WORK/guide.pt now and then
(weights, optimizer state, what was done so far). The rate warms up and then falls like a cosine to a twentieth over the
given minutes, so the run ends on time whatever the machine does; `--resume` goes on from the checkpoint, with
`--part 0.4 1` at that place of the cosine. A file WORK/stop ends the run early.
Set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=8000000000: fresh pages for every tensor halve the speed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from assets.recipe.muon import Muon
from assets.recipe.network import Network, Shape

ADAM_RATE = 0.15  # AdamW's rate for embeddings and norms, as a part of Muon's for the matrices


def batches(
    work: Path, done: list[int], batch: int, length: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Inputs, targets, weights of shape (batch, length). Cuts start anywhere: a conversation meets every position."""
    while True:
        seeds = sorted(int(path.stem.split("-")[1]) for path in work.glob("shard-*.npz"))
        fresh = [seed for seed in seeds if seed not in done]
        seed = fresh[0] if fresh else seeds[int(rng.integers(len(seeds)))]
        done.append(seed)
        shard = np.load(work / f"shard-{seed}.npz")
        shift = int(rng.integers(length))
        tokens, weight = shard["tokens"][shift:].astype(np.int64), shard["weight"][shift:].astype(np.float32) / 100
        rows = (len(tokens) - 1) // length
        order = rng.permutation(rows)
        for start in range(0, rows - batch + 1, batch):
            at = order[start : start + batch, None] * length + np.arange(length + 1)
            cut = torch.from_numpy(tokens[at])
            yield cut[:, :-1], cut[:, 1:], torch.from_numpy(weight[at[:, 1:]])


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--part", type=float, nargs=2, default=(0.0, 1.0), help="the part of the cosine that this run covers"
    )
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", type=json.loads, default={})
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def rate_at(arguments: argparse.Namespace, step: int, passed: float) -> float:
    """Muon's rate at a step, when `passed` (0 to 1) of the run's time is over."""
    progress = arguments.part[0] + (arguments.part[1] - arguments.part[0]) * passed
    cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2
    return float(arguments.rate * min(1.0, (step + 1) / arguments.warmup) * cosine)


def main() -> None:
    arguments = options()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    saved = torch.load(arguments.work / "guide.pt", weights_only=True) if arguments.resume else None
    network = Network(Shape(**(saved["shape"] if saved else arguments.shape)))
    hidden = [weight for name, weight in network.named_parameters() if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in network.named_parameters() if weight.dim() != 2 or "embed" in name]
    optimizers = (
        Muon(hidden, lr=arguments.rate),
        torch.optim.AdamW(others, lr=arguments.rate * ADAM_RATE, betas=(0.9, 0.97), weight_decay=0.0, foreach=True),
    )
    log = {"minutes": 0.0, "tokens": 0, "loss": 0.0}
    done: list[int] = []
    if saved:
        network.load_state_dict(saved["weights"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        log, done = saved["log"], saved["done"]
    before = dict(log)
    print(f"{sum(weight.numel() for weight in network.parameters()):,} parameters", flush=True)

    def save() -> None:
        state = {
            "weights": network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "shape": network.shape.to_json(),
            "log": log,
            "done": done,
        }
        torch.save(state, arguments.work / "guide.pt.new")
        (arguments.work / "guide.pt.new").replace(arguments.work / "guide.pt")

    started = shown = stored = time.monotonic()
    mean = None
    stop = arguments.work / "stop"
    for step, (tokens, targets, weight) in enumerate(
        batches(arguments.work, done, arguments.batch, arguments.length, rng)
    ):
        now = time.monotonic()
        passed = (now - started) / 60 / arguments.minutes
        if passed >= 1 or stop.exists():
            break
        rate = rate_at(arguments, step, passed)
        for optimizer, scale in zip(optimizers, (1.0, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        logits = network.logits(network(tokens))
        loss = (
            F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none") * weight.flatten()
        ).sum() / weight.sum()
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        log["tokens"] += tokens.numel()
        log["minutes"] = before["minutes"] + (time.monotonic() - started) / 60
        log["loss"] = mean
        if now - shown > 20:
            shown = now
            speed = (log["tokens"] - before["tokens"]) / (now - started)
            place = f"{log['minutes']:6.1f} min  step {step}  {log['tokens']:,} tokens"
            print(f"{place}  loss {mean:.4f}  rate {rate:.5f}  {speed:.0f}/s", flush=True)
        if now - stored > 150:
            stored = now
            save()
    save()
    print(f"done: {log}", flush=True)


if __name__ == "__main__":
    main()
