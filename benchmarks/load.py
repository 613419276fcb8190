"""Measure the default engine against the usual ways to run many images through a model.

    python benchmarks/load.py --model demo
    python benchmarks/load.py --model 120m --threads 2

Every engine answers the same mixed load (``workload.py``) with the same weights in the same type, images
already prepared, the processor's work counted. Answers have the lengths that the load asks for: no model here
ever says that it has ended.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoModelForImageTextToText, StoppingCriteria, StoppingCriteriaList
from workload import QUESTIONS, Item, Load, mixed_load, prepare

from vlm_nb.engines.base import Engine, generate
from vlm_nb.engines.hf.processor import hide_broken_torchvision, load_processor
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request

BATCH = 16


class Lengths(StoppingCriteria):
    """Ends each row of a batch at its own length, as end tokens would."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = torch.tensor(lengths)
        self.start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.start = input_ids.shape[1] - 1 if self.start is None else self.start
        return (input_ids.shape[1] - self.start >= self.lengths).to(input_ids.device)


class Plain:
    """The checkpoint as transformers loads it, with its processor."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoConfig

        from vlm_nb.engines.hf.files import local_checkpoint

        hide_broken_torchvision()
        config = AutoConfig.from_pretrained(folder)
        self.processor = load_processor(
            local_checkpoint(str(folder), folder), config, trust_remote_code=False
        )
        self.processor.tokenizer.padding_side = "left"
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        model.generation_config.max_new_tokens = None
        self.model = model.eval()

    def answer(self, load: Load, items: list[Item]) -> int:
        """One batch through ``generate``; returns the new tokens that were asked for."""
        prompts = [self.prompt(item.question) for item in items]
        images = [[load.images[item.image]] for item in items]
        inputs = self.processor(
            text=prompts, images=images, return_tensors="pt", padding=True, do_resize=False
        )
        inputs = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        lengths = Lengths([item.tokens for item in items])
        with torch.inference_mode():
            out = self.model.generate(
                **inputs,
                max_new_tokens=max(item.tokens for item in items),
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([lengths]),
            )
        new = [self.processor.tokenizer.decode(row) for row in out[:, inputs["input_ids"].shape[1] :]]
        assert len(new) == len(items)
        return sum(item.tokens for item in items)

    def prompt(self, question: str) -> str:
        """The question as the chat template writes it."""
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        return text


def one_at_a_time(plain: Plain, load: Load) -> int:
    return sum(plain.answer(load, [item]) for item in load.items)


def static_sorted(plain: Plain, load: Load) -> int:
    items = sorted(load.items, key=load.cost)
    return sum(plain.answer(load, items[at : at + BATCH]) for at in range(0, len(items), BATCH))


def pipeline(plain: Plain, load: Load) -> int:
    """The image-text-to-text pipeline; a call for each batch, so that rows can end at their lengths."""
    from transformers import pipeline as make

    pipe: Any = make("image-text-to-text", model=plain.model, processor=plain.processor)
    total = 0
    for at in range(0, len(load.items), BATCH):
        items = load.items[at : at + BATCH]
        lengths = Lengths([item.tokens for item in items])
        out = pipe(
            images=[[load.images[item.image]] for item in items],
            text=[plain.prompt(item.question) for item in items],
            batch_size=len(items),
            generate_kwargs={
                "max_new_tokens": max(item.tokens for item in items),
                "do_sample": False,
                "stopping_criteria": StoppingCriteriaList([lengths]),
            },
        )
        assert len(out) == len(items)
        total += sum(item.tokens for item in items)
    return total


# Ours -------------------------------------------------------------------------------------------------------


def ours(engine: Engine, load: Load) -> int:
    answers = list(generate(engine, requests(load)))
    errors = [answer.error for _, answer in answers if answer.error is not None]
    if errors:
        raise errors[0]
    return sum(answer.usage.new_tokens or 0 for _, answer in answers)


def requests(load: Load) -> Iterator[Request]:
    for item in load.items:
        yield request(load, item.image, item.question, item.tokens)


def request(load: Load, image: int, question: str, tokens: int, *, interactive: bool = False) -> Request:
    return Request(
        messages=(Message("user", (ImageRef(0), question)),),
        images=(load.images[image],),
        generation=GenerationConfig(max_new_tokens=tokens),
        processor_kwargs={"do_resize": False},
        interactive=interactive,
    )


def start(folder: Path, dtype: torch.dtype, **options: Any) -> Engine:
    """Our engine with the folder loaded; ``options`` go to the backend."""
    import threading

    spec = LoadSpec(model=str(folder), dtype=dtype, engine_args=options)
    engine = Engine(TransformersBackend(spec), "transformers")
    engine.load(lambda progress: None, threading.Event()).result(300)
    return engine


def first_tokens(engine: Engine, load: Load, count: int) -> tuple[float, float]:
    """Median seconds to the first token of the first and of the second question about one image."""
    firsts, seconds = [], []
    large = sorted(range(len(load.images)), key=lambda n: -load.images[n].size[0] * load.images[n].size[1])
    for image in large[:count]:
        for times, question in ((firsts, QUESTIONS[0]), (seconds, QUESTIONS[2])):
            asked = request(load, image, question, 4, interactive=True)
            times.append(engine.submit(asked).result(120).usage.first_token_seconds or 0.0)
    return statistics.median(firsts), statistics.median(seconds)


def alone(engine: Engine, load: Load, tokens: int = 128) -> float:
    """New tokens a second with one request under way, prefill not counted."""
    usage = engine.submit(request(load, 0, QUESTIONS[0], tokens, interactive=True)).result(300).usage
    return (tokens - 1) / ((usage.seconds or 0.0) - (usage.first_token_seconds or 0.0))


# The table --------------------------------------------------------------------------------------------------


def timed(name: str, run: Callable[[], int], repeats: int) -> tuple[str, float, float]:
    """(name, best seconds, new tokens a second) of ``repeats`` runs."""
    best, tokens = float("inf"), 0
    for _ in range(repeats):
        began = time.perf_counter()
        tokens = run()
        best = min(best, time.perf_counter() - began)
    print(f"  {name}: {best:.2f} s", flush=True)
    return name, best, tokens / best


def measure(folder: Path, dtype: torch.dtype, load: Load, repeats: int) -> None:
    warm = Load(load.images, load.items[:4])
    rows, facts = [], []
    plain = Plain(folder, dtype)
    ways: list[tuple[str, Callable[[Plain, Load], int]]] = [
        ("a: generate, one at a time", one_at_a_time),
        (f"b: transformers pipeline, batch_size={BATCH}", pipeline),
        (f"c: static batches of {BATCH}, sorted by image tokens", static_sorted),
    ]
    for name, way in ways:
        way(plain, warm)
        rows.append(timed(name, lambda way=way: way(plain, load), repeats))  # type: ignore[misc]
    for name, reuse in (("ours, reuse off", False), ("ours, reuse on", True)):
        engine = start(folder, dtype, reuse=reuse)
        try:
            ours(engine, warm)
            rows.append(timed(name, lambda engine=engine: ours(engine, load), 1 if reuse else repeats))  # type: ignore[misc]
        finally:
            engine.close()
    engine = start(folder, dtype)
    try:
        ours(engine, warm)
        first, second = first_tokens(engine, mixed_load(seed=99), 8)
        facts.append(f"first token of the 1st question {first:.3f} s, of the 2nd {second:.3f} s: "
                     f"{second / first:.2f}×")  # fmt: skip
        facts.append(f"alone: {alone(engine, load):.0f} tokens/s")
    finally:
        engine.close()
    show(rows, facts)


def show(rows: list[tuple[str, float, float]], facts: list[str]) -> None:
    slowest, pipe = rows[0][1], rows[1][1]
    print("\n| way | seconds | new tokens/s | × (a) | × (b) |\n|---|---|---|---|---|")
    for name, seconds, speed in rows:
        print(f"| {name} | {seconds:.2f} | {speed:.0f} | {slowest / seconds:.2f} | {pipe / seconds:.2f} |")
    print("", *facts, sep="\n")


def machine(threads: int) -> str:
    import transformers

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {platform.machine()}, {threads} threads, {where}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("demo", "120m"), default="demo")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="24 requests over 16 small images")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    load = mixed_load(requests=24, images=16, longest=336) if args.quick else mixed_load()
    print(f"{args.model}, {args.dtype}; {len(load.items)} requests; {machine(args.threads)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(prepare(args.model, Path(folder)), getattr(torch, args.dtype), load, args.repeats)


if __name__ == "__main__":
    main()
