"""Train the demo model: ``python examples/demo_model/train.py --minutes 80 --out runs/demo``.

Seeded, on a CPU or a GPU (``--device cuda --size large --sequences 512``). The learning rate rests, then
falls to zero over the last part of the run, whichever of ``--steps`` and ``--minutes`` ends it. ``--resume``
continues a stopped run from its last state, ``--start`` begins a new one from finished weights.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from fast import Trainee
from model import SIZES, VISION_BASE, build_model, save
from packing import Batch, Batches, Plan
from tokenizer import NUMBERS, build_tokenizer
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vlm_nb.engines.hf.devices import cpu_computes_bf16

WARM_UP = 100


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for weights and state")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after this long, if earlier")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the state in --out")
    parser.add_argument("--start", type=Path, help="folder of weights to begin from")
    parser.add_argument("--sequences", type=int, default=64, help="images a step")
    parser.add_argument("--max-objects", type=int, default=6)
    parser.add_argument(
        "--easy-steps", type=int, default=1000, help="steps until scenes have all their objects"
    )
    parser.add_argument("--two-images", type=float, default=0.1, help="share of batches about two images")
    parser.add_argument(
        "--canvas-share", type=float, default=0.45, help="share of images that are not square"
    )
    parser.add_argument("--muon-lr", type=float, default=0.01)
    parser.add_argument("--adam-lr", type=float, default=0.002)
    parser.add_argument(
        "--decay", type=float, default=0.4, help="last share of the run in which rates fall to zero"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Run:
    """Model, optimisers and progress of one training run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.tokenizer = self._first_tokenizer()
        self.model = self._first_weights(self.tokenizer)
        self.trainee = Trainee(self.model).to(self.device)
        self.optimisers = self._optimisers()
        self.rates = [group["lr"] for optimiser in self.optimisers for group in optimiser.param_groups]
        self.step, self.seconds = 0, 0.0
        if options.resume:
            self._load_state()

    def _first_tokenizer(self) -> PreTrainedTokenizerFast:
        """The one of the weights to begin from: newer wordings must not change the ids."""
        if self.options.start is None:
            return build_tokenizer()
        return PreTrainedTokenizerFast.from_pretrained(self.options.start)

    def _first_weights(self, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
        if self.options.start is None:
            return build_model(tokenizer, self.options.size, self.options.seed)
        config = Qwen2_5_VLConfig.from_pretrained(self.options.start)
        config.vision_config.rope_parameters["rope_theta"] = VISION_BASE
        return Qwen2_5_VLForConditionalGeneration.from_pretrained(
            self.options.start, config=config, dtype=torch.float32
        )

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        named = list(self.model.named_parameters())
        matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
        rest = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
        return [
            torch.optim.Muon(matrices, lr=self.options.muon_lr, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=self.options.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]

    @property
    def progress(self) -> float:
        """How much of the run is done, 0..1."""
        return float(max(self.step / self.options.steps, self.seconds / (60 * self.options.minutes)))

    def set_rates(self) -> None:
        """Rise over the warm-up, rest, fall to zero at the end."""
        share = min(1.0, (self.step + 1) / WARM_UP, max(0.0, 1 - self.progress) / self.options.decay)
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * share

    def plan(self) -> Plan:
        """What the batches of this run hold."""
        given = self.options
        return Plan(
            sequences=given.sequences, seed=given.seed, max_objects=given.max_objects,
            easy_batches=given.easy_steps, canvas_share=given.canvas_share, two_images_share=given.two_images,
        )  # fmt: skip

    def batches(self) -> Iterator[Batch]:
        """Batches from where the run stands, drawn by worker processes."""
        data = Batches(self.tokenizer, self.plan(), first=self.step)
        workers = self.options.workers
        loader = DataLoader(
            data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        return iter(loader)

    def save_state(self) -> None:
        """Write everything that `--resume` needs; a cut-off write leaves the old state in place."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(), "step": self.step, "seconds": self.seconds,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }  # fmt: skip
        path = self.options.out / "state.pt"
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def _load_state(self) -> None:
        state = torch.load(self.options.out / "state.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def train(run: Run) -> None:
    """Train until the steps or the minutes are over, then write the weights."""
    compute = torch.compile(run.trainee)
    probes = [Batches(run.tokenizer, Plan(seed=1), first=0).batch(i).to(run.device) for i in range(2)]
    began, before, saved = time.monotonic(), run.seconds, time.monotonic()
    recent = torch.zeros(3)
    for batch in run.batches():
        if run.progress >= 1:
            break
        recent += _step(run, compute, batch)
        run.seconds = before + time.monotonic() - began
        if run.step % 100 == 0:
            print(_line(run, recent / 100), flush=True)
            recent.zero_()
        if run.step % 500 == 0:
            print(_probe(run, probes), flush=True)
        if time.monotonic() - saved > 240:
            run.save_state()
            saved = time.monotonic()
    run.save_state()
    save(run.model, run.tokenizer, run.options.out / "weights")


def _step(run: Run, compute: Callable[[Batch], tuple[torch.Tensor, ...]], batch: Batch) -> torch.Tensor:
    run.set_rates()
    with _autocast(run.device):
        loss, coordinates, others = compute(batch.to(run.device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimiser in run.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    run.step += 1
    return torch.stack((loss, coordinates, others)).detach().cpu()


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bf16 where the device computes it; elsewhere it would only be slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or cpu_computes_bf16())


def _line(run: Run, losses: torch.Tensor) -> str:
    total, coordinates, others = losses.tolist()
    rate = run.step * run.options.sequences / run.seconds
    return (
        f"step {run.step} {run.seconds / 60:.1f} min ({rate:.0f} images/s): loss {total:.3f}, "
        f"coordinates {coordinates:.3f}, words {others:.3f}"
    )


@torch.no_grad()
def _probe(run: Run, probes: list[Batch]) -> str:
    """Given true answers so far: share of short answers right, and mean error of a coordinate in pixels."""
    right, errors = [], []
    for batch in probes:
        with _autocast(run.device):
            hidden = run.trainee.hidden(batch).flatten(0, 1)[batch.targets]
            logits = run.model.lm_head(hidden).float()
        short = batch.weights > 2
        right.append((logits.argmax(-1) == batch.labels)[short].float())
        coordinate = (batch.labels < NUMBERS) & (batch.weights == 1)
        guess = logits[coordinate][:, :NUMBERS].argmax(-1)
        errors.append((guess - batch.labels[coordinate]).abs().float())
    return (
        f"  probe: short {torch.cat(right).mean():.3f}, coordinates off by {torch.cat(errors).mean():.2f} px"
    )


if __name__ == "__main__":
    chosen = parse()
    torch.set_num_threads(chosen.threads)
    torch.set_float32_matmul_precision("high")
    train(Run(chosen))
