"""The mixed load through vLLM, for ``load.py --vllm``: runs with the Python of vLLM's own environment.

Prints one line of JSON: seconds of wall and processor, and new tokens. Starting vLLM is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--first", action="store_true")
    asked = parser.parse_args()
    settle(asked.threads)
    from workload import chosen_load

    load = chosen_load(quick=asked.quick, first=asked.first)
    engine = start(asked)
    prompts = [prompt(engine, load, item) for item in load.items]
    lengths = [limit(item.tokens) for item in load.items]
    engine.generate(prompts[:4], lengths[:4], use_tqdm=False)
    engine.reset_prefix_cache()
    wall, own = time.perf_counter(), time.process_time()
    answers = engine.generate(prompts, lengths, use_tqdm=False)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    assert tokens == sum(item.tokens for item in load.items)
    print(json.dumps({"wall": wall, "own": own, "tokens": tokens}))


def settle(threads: int) -> None:
    """Everything in this process, so that its processor seconds are all of them."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }


def start(asked: argparse.Namespace) -> Any:
    from vllm import LLM

    cache = {} if asked.reuse else {"mm_processor_cache_gb": 0}
    return LLM(
        model=str(asked.folder),
        dtype=asked.dtype,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=asked.slots,
        enable_prefix_caching=asked.reuse,
        limit_mm_per_prompt={"image": 1, "video": 0},
        **cache,
    )


def prompt(engine: Any, load: Any, item: Any) -> dict[str, Any]:
    parts = [{"type": "image"}, {"type": "text", "text": item.question}]
    text = engine.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    return {"prompt": text, "multi_modal_data": {"image": load.images[item.image]}}


def limit(tokens: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)


if __name__ == "__main__":
    main()
