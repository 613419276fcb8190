"""Measure the default engine against the usual ways to run many images through a model.

    python benchmarks/load.py --model demo
    python benchmarks/load.py --model 120m --threads 2
    python benchmarks/load.py --model demo --compile --only "ours, reuse off"

Every engine answers the same mixed load (``workload.py``) with the same weights in the same type, images
already prepared, the processor's work counted. Answers have the lengths that the load asks for: no model here
ever says that it has ended.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoModelForImageTextToText, StoppingCriteria, StoppingCriteriaList
from workload import QUESTIONS, Item, Load, chosen_load, mixed_load, prepare

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


def start(folder: Path, dtype: torch.dtype, *, compile: bool = False, **options: Any) -> Engine:
    """Our engine with the folder loaded; ``options`` go to the backend."""
    engine = opened(LoadSpec(model=str(folder), dtype=dtype, compile=compile, engine_args=options))
    if compile and not engine.capabilities.compiled:
        raise SystemExit(f"compile: {engine.info.details['compile']}")
    return engine


def opened(spec: LoadSpec) -> Engine:
    """Our engine with the model of ``spec`` loaded. Raises a VLMError."""
    engine = Engine(TransformersBackend(spec), "transformers")
    try:
        engine.load(lambda progress: None, threading.Event()).result(1800)
    except BaseException:
        engine.close()
        raise
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


def a_token(engine: Engine, load: Load) -> float:
    """Processor milliseconds for a token of a request alone: a long answer's less a short one's."""
    spent = []
    for tokens in (8, 136):
        began = time.process_time()
        engine.submit(request(load, 0, QUESTIONS[0], tokens, interactive=True)).result(600)
        spent.append(time.process_time() - began)
    return (spent[1] - spent[0]) / 128 * 1000


# The table --------------------------------------------------------------------------------------------------


@dataclass
class Turns:
    """One way's runs: wall seconds, and the processor seconds of the whole process, which others' jobs
    on the machine change less.
    """

    name: str
    tokens: int = 0
    wall: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], int]) -> None:
        wall, own = time.perf_counter(), time.process_time()
        tokens = work()
        self.add(time.perf_counter() - wall, time.process_time() - own, tokens)

    def add(self, wall: float, own: float, tokens: int) -> None:
        self.tokens = tokens
        self.wall.append(wall)
        self.own.append(own)
        print(f"  {self.name}: {self.wall[-1]:.2f} s, processor {self.own[-1]:.2f} s", flush=True)


Way = tuple[str, Callable[[Turns], None]]


def ways_of(plain: Plain, folder: Path, dtype: torch.dtype, load: Load, *, compiled: bool) -> list[Way]:
    """Every way as a function that runs one turn of it."""
    warm = Load(load.images, load.items[:4])

    def theirs(way: Callable[[Plain, Load], int]) -> Callable[[Turns], None]:
        def turn(turns: Turns) -> None:
            way(plain, warm)
            turns.run(lambda: way(plain, load))

        return turn

    def mine(**options: Any) -> Callable[[Turns], None]:
        def turn(turns: Turns) -> None:
            engine = start(folder, dtype, **options)  # a new one: what is known must not come from a turn
            try:
                ours(engine, warm)
                turns.run(lambda: ours(engine, load))
            finally:
                engine.close()

        return turn

    with_graphs = [
        ("ours, reuse off, compiled", mine(reuse=False, compile=True)),
        ("ours, reuse on, compiled", mine(compile=True)),
    ]
    return [
        ("a: generate, one at a time", theirs(one_at_a_time)),
        (f"b: transformers pipeline, batch_size={BATCH}", theirs(pipeline)),
        (f"c: static batches of {BATCH}, sorted by image tokens", theirs(static_sorted)),
        ("ours, reuse off", mine(reuse=False)),
        ("ours, reuse on", mine()),
        ("ours, reuse off, weights not packed", mine(reuse=False, pack=False)),
        *(with_graphs if compiled else []),
    ]


def vllm_ways(folder: Path, asked: argparse.Namespace) -> Iterator[Way]:
    """The ways of vLLM, in its own environment; each turn in a process of its own."""
    script = str(Path(__file__).with_name("load_vllm.py"))
    common = [asked.vllm, script, str(folder), "--dtype", asked.dtype, "--threads", str(asked.threads)]
    common += [f"--{name}" for name in ("quick", "first") if getattr(asked, name)]

    def turn(options: list[str], turns: Turns) -> None:
        done = subprocess.run([*common, *options], stdout=subprocess.PIPE, text=True, check=True)
        turns.add(**json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{"))))

    for name, options in (("d: vLLM, reuse off", []), ("d: vLLM, reuse on", ["--reuse"])):
        yield name, functools.partial(turn, options)


def measure(folder: Path, dtype: torch.dtype, load: Load, asked: argparse.Namespace) -> None:
    ways = ways_of(Plain(folder, dtype), folder, dtype, load, compiled=asked.compile)
    ways += vllm_ways(folder, asked) if asked.vllm else []
    table = [Turns(name) for name, _ in ways]
    for _ in range(asked.repeats):  # in turns, for a machine's load comes and goes
        for turns, (name, way) in zip(table, ways, strict=True):
            if asked.only is None or any(name.startswith(start) for start in asked.only):
                way(turns)
    show([turns for turns in table if turns.wall])
    for fact in facts(folder, dtype, load):
        print(fact, flush=True)
    if asked.compile:
        print(compared(folder, dtype, load), flush=True)


def facts(folder: Path, dtype: torch.dtype, load: Load) -> Iterator[str]:
    """First tokens, and one request alone."""
    engine = start(folder, dtype)
    try:
        ours(engine, Load(load.images, load.items[:4]))
        first, second = first_tokens(engine, mixed_load(seed=99), 8)
        yield (
            f"first token of the 1st question {first:.3f} s, of the 2nd {second:.3f} s: {second / first:.2f}×"
        )
        yield f"alone: {alone(engine, load):.0f} tokens/s"
    finally:
        engine.close()


def compared(folder: Path, dtype: torch.dtype, load: Load, turns: int = 5) -> str:
    """A request alone, without and with compiled steps, in turns."""
    engines = [start(folder, dtype), start(folder, dtype, compile=True)]
    try:
        times = [[a_token(engine, load) for engine in engines] for _ in range(turns + 1)][1:]
        speeds = [[alone(engine, load) for engine in engines] for _ in range(turns)]
    finally:
        for engine in engines:
            engine.close()
    plain, compiled = (statistics.median(column) for column in zip(*times, strict=True))
    slow, fast = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    return (
        f"a token alone: {plain:.2f} ms of processor, compiled {compiled:.2f} ms, {ratio:.2f}×; "
        f"{slow:.0f} and {fast:.0f} tokens/s by the clock; {engines[1].info.details['compile']}"
    )


def show(table: list[Turns]) -> None:
    """Medians; the ratios are medians of the ratios within a turn."""
    print("\n| way | seconds | processor seconds | new tokens/s | × (a) | × (b) | by processor |")
    print("|---|---|---|---|---|---|---|")
    for turns in table:
        wall, own = statistics.median(turns.wall), statistics.median(turns.own)
        bases = [next((base for base in table if base.name.startswith(way)), turns) for way in ("a:", "b:")]
        walls = [_ratio(base.wall, turns.wall) for base in bases]
        owns = [_ratio(base.own, turns.own) for base in bases]
        print(
            f"| {turns.name} | {wall:.2f} | {own:.2f} | {turns.tokens / wall:.0f} | "
            f"{' | '.join(walls)} | {' / '.join(owns)} |"
        )
    print()


def _ratio(base: list[float], mine: list[float]) -> str:
    return f"{statistics.median(b / m for b, m in zip(base, mine, strict=True)):.2f}"


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
    parser.add_argument("--vllm", help="the Python of an environment with vLLM (tests/servers/install.sh)")
    parser.add_argument("--only", action="append", help="ways to run, by how their names begin")
    parser.add_argument("--compile", action="store_true", help="ours with compile=True, too")
    parser.add_argument("--quick", action="store_true", help="24 requests over 16 small images")
    parser.add_argument("--first", action="store_true", help="the first token of each request alone")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    load = chosen_load(quick=args.quick, first=args.first)
    print(f"{args.model}, {args.dtype}; {len(load.items)} requests; {machine(args.threads)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(prepare(args.model, Path(folder)), getattr(torch, args.dtype), load, args)


if __name__ == "__main__":
    main()
