"""Train one family's tiny model: ``python examples/tiny_models/train.py --family llava --out runs/llava``.

Seeded, fp32, on a CPU. The learning rate rests, then falls to zero over the last part of the run, whichever
of ``--steps`` and ``--minutes`` ends it. The folder holds bf16 weights, tokenizer, processor and template.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from learner import Learner, Losses, first_model, is_matrix, take
from lessons import Teacher
from muon import Muon
from recipes import RECIPES
from transformers import AutoModelForImageTextToText

WARM_UP = 50


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--family", choices=tuple(RECIPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=12.0, help="end after this long, if earlier")
    parser.add_argument("--images", type=int, default=16, help="images a step, two questions each")
    parser.add_argument(
        "--looking", type=float, default=0.4, help="first share of the run, for the vision tower alone"
    )
    parser.add_argument("--pairs", type=float, default=0.0, help="chance that a scene may hold two objects")
    parser.add_argument("--tower", type=Path, help="folder of a model whose vision tower to begin with")
    parser.add_argument("--start", type=Path, help="folder of a model of this family to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=0.003)
    parser.add_argument("--decay", type=float, default=0.4, help="last share of the run, with falling rates")
    parser.add_argument("--sigma", type=float, default=10.0, help="width of a coordinate's target, per mille")
    return parser.parse_args()


class Run:
    """Model, optimisers and progress of one training run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        recipe = RECIPES[options.family]
        tokenizer = recipe.tokenizer()
        config, self.processor = recipe.build(tokenizer)
        numbers = tokenizer.convert_tokens_to_ids(list(recipe.numbers))
        _set_vocabulary(config, len(tokenizer))
        self.model = first_model(config, numbers, options.seed)
        if options.tower:
            print(f"{take(self.model, options.tower, 'vision_tower.')} tensors of the vision tower taken")
        if options.start:
            print(take(self.model, options.start), "tensors taken")
        self.learner = Learner(self.model, numbers, options.sigma)
        self.teacher = Teacher(recipe, self.model, self.processor, seed=options.seed)
        self.optimisers = self._optimisers()
        self.rates = [group["lr"] for optimiser in self.optimisers for group in optimiser.param_groups]
        self.step, self.images, self.began = 0, 0, time.monotonic()

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        named = [(name, weight) for name, weight in self.learner.named_parameters() if weight.requires_grad]
        flat = [name for name, weight in named if is_matrix(name, weight) and "glimpse" not in name]
        return [
            Muon([weight for name, weight in named if name in flat], self.options.muon_lr),
            torch.optim.AdamW(
                [weight for name, weight in named if name not in flat], lr=self.options.adam_lr,
                betas=(0.9, 0.98), weight_decay=0.0, fused=True,
            ),
        ]  # fmt: skip

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.began

    @property
    def progress(self) -> float:
        """How much of the run is done, 0..1."""
        return max(self.step / self.options.steps, self.seconds / (60 * self.options.minutes))

    def advance(self) -> Losses:
        """One step: rates, loss, gradients, optimisers."""
        share = min(1.0, (self.step + 1) / WARM_UP, max(0.0, 1 - self.progress) / self.options.decay)
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * share
        losses = self._losses(share)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        return losses

    def _losses(self, share: float) -> Losses:
        """At first the vision tower learns alone: that is five times as fast as with the questions."""
        size, done = self.options.images, self.progress - self.options.looking
        pairs = self.options.pairs
        self.images += 2 * size if done < 0 else size
        if done < 0:
            return self.learner.look(self.teacher.batch(self.step, 2 * size, most=pairs, asked=False))
        batch = self.teacher.batch(self.step, size, most=pairs)
        return self.learner(batch, helped=0.5 * share)

    def line(self, losses: Losses) -> str:
        """Progress as one line."""
        return (
            f"step {self.step} {self.seconds / 60:.1f} min, {self.images} images: "
            f"coordinates {losses.coordinates:.3f}, words {losses.words:.3f}, glimpse {losses.glimpse:.3f}"
        )


def _set_vocabulary(config: Any, size: int) -> None:
    """The processor may have added tokens after the configuration was made."""
    config.text_config.vocab_size = max(config.text_config.vocab_size, size)


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write bf16 weights, configuration, tokenizer, processor and template for ``from_pretrained``."""
    copy = AutoModelForImageTextToText.from_config(model.config, dtype=torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    tokenizer = processor.tokenizer
    copy.generation_config.eos_token_id = tokenizer.eos_token_id
    copy.generation_config.pad_token_id = tokenizer.pad_token_id
    copy.generation_config.max_new_tokens = 64
    copy.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def train(run: Run) -> None:
    """Train until the steps or the minutes are over, then write the folder."""
    count = sum(weight.numel() for weight in run.model.parameters())
    print(f"{run.options.family}: {count / 1e6:.2f} M parameters", flush=True)
    while run.progress < 1:
        losses = run.advance()
        if run.step % 25 == 0:
            print(run.line(losses), flush=True)
    save(run.model, run.processor, run.options.out)


if __name__ == "__main__":
    chosen = parse()
    torch.set_num_threads(chosen.threads)
    train(Run(chosen))
