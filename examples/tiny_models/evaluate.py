"""Score tiny models on held-out scenes: ``python examples/tiny_models/evaluate.py tests/tiny_trained/*``.

Each folder is loaded by the package as any checkpoint is, in fp32, and asked in batches with the package's
own prompts. ``--docs`` writes the table into docs/tiny_models.md.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import torch
from scoring import SIZES, Answered, Scores, answer_all, score

import vlm_nb

DOCS = Path(__file__).parents[2] / "docs" / "tiny_models.md"
MARKS = ("<!-- scores: begin -->", "<!-- scores: end -->")
HEAD = ("model", "detect, IoU", "locate, IoU", "recall at 0.5", *SIZES, "extra boxes", "names", "captions")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--machine", default="2 shared CPU cores", help="the machine in words")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/tiny_models.md")
    parser.add_argument("--show", type=int, default=0, help="print the answers about this many scenes")
    return parser.parse_args()


def answers_of(folder: Path, options: argparse.Namespace) -> list[Answered]:
    """Load, ask, unload."""
    model = vlm_nb.load(str(folder), dtype=options.dtype, device_map="cpu")
    try:
        return answer_all(model, range(options.scenes))
    finally:
        model.unload()


def row(name: str, found: Scores) -> str:
    """One line of the table."""
    values = (
        *(found.detect, found.locate, found.recall, *(found.by_kind[kind] for kind in SIZES)),
        *(found.extra, found.names, found.captions),
    )
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"


def show(answers: list[Answered]) -> None:
    """Print what was asked, what is true and what was said."""
    for one in answers:
        print(one.kind, [(thing.name, [round(v, 2) for v in thing.bbox]) for thing in one.scene.objects])
        for answer in (one.caption, one.detect, one.locate):
            print("   ", repr(answer.raw))


def write_docs(text: str) -> None:
    """Replace what stands between the marks of the page."""
    page = DOCS.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    DOCS.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def main() -> None:
    """Evaluate, print, and write the page if asked."""
    options = parse()
    torch.set_num_threads(options.threads)
    today = datetime.datetime.now(datetime.UTC).date()
    note = f"{options.scenes} held-out scenes a model, {options.dtype}, {options.machine}, {today}:"
    lines = [note, "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for folder in options.folders:
        answers = answers_of(folder, options)
        lines.append(row(folder.name, score(answers)))
        print(lines[-1], flush=True)
        show(answers[: options.show])
    text = "\n".join(lines)
    print(text)
    if options.docs:
        write_docs(text)


if __name__ == "__main__":
    main()
