"""Loads models in a process of its own: huggingface_hub reads ``HF_ENDPOINT`` and its cache once, at import.

Orders are JSON lines on its input, answers JSON lines on its output; nothing else may come out there.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from huggingface_hub import constants

from vlm_nb.engines.base import Engine, Progress
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.errors import VLMError
from vlm_nb.request import GenerationConfig, Message, Request

# It keeps whole chunks of 10 MB when a connection breaks: smaller ones, for checkpoints of a few hundred KB.
constants.DOWNLOAD_CHUNK_SIZE = 10_000


def load(order: dict[str, Any]) -> dict[str, Any]:
    cancel_after = order.pop("cancel_after", None)
    cancelled = threading.Event()
    reports: list[tuple[str, float, float | None]] = []

    def progress(report: Progress) -> None:
        reports.append((report.text, report.done, report.total))
        if cancel_after is not None and report.done >= cancel_after and "downloading" in report.text:
            cancelled.set()

    engine = Engine(TransformersBackend(LoadSpec(dtype="float32", **order)), "transformers")
    started = time.monotonic()
    answer: dict[str, Any] = {"reports": reports}
    try:
        info = engine.load(progress, cancelled).result(120)
        question = Request(
            messages=(Message("user", ("hello",)),), generation=GenerationConfig(max_new_tokens=4)
        )
        completion = engine.submit(question).result(60)
        answer |= {
            "revision": info.revision,
            "fingerprint": info.fingerprint,
            "tokens": completion.usage.new_tokens,
        }
    except VLMError as error:
        answer |= {"error": type(error).__name__, "message": str(error)}
    answer["seconds"] = time.monotonic() - started
    engine.close()
    return answer


for line in sys.stdin:
    print(json.dumps(load(json.loads(line))), flush=True)
