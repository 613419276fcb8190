"""Training batches: many independent dialogues about one image share its vision cost in one sequence.

A sequence is the opening ``<|im_start|>user ... <|vision_end|>`` with its images, then blocks; a block sees
the opening and itself only, and its positions go on from the opening, so it is exactly the sequence that a
single question makes at inference.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from model import CELL, PATCH
from questions import Turn, ask_two, endless
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from vlm_nb.demo.scenes import CANVASES, Scene, draw_scene

CELLS, PATCHES = 25, 100
#: Seeds from here on are never trained on.
HELD_OUT_SEED = 1 << 40
_BOX = "bbox_2d"


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of one step; B sequences of L tokens, N images.

    `patches` [N, 100, 588] uint8 in Qwen order (cell by cell, 2 x 2 patches in a cell, channel first),
    `grids` [N, 2] rows and columns of patches, `ids` [B, L], `positions` [3, B, L], `blocks` [B, L]
    (0 opening, -1 padding), `cells` [B, L] index into the N x 25 image features or -1, `targets` [M] flat
    indices of the tokens to predict from, `labels` [M], `weights` [M].
    """

    patches: torch.Tensor
    grids: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    blocks: torch.Tensor
    cells: torch.Tensor
    targets: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Plan:
    """What batches hold: counts, chances, and how hard the scenes are."""

    sequences: int = 64
    length: int = 224
    seed: int = 0
    max_objects: int = 4
    easy_batches: int = 0
    canvas_share: float = 0.25
    noise_share: float = 0.25
    jpeg_share: float = 0.15
    two_images_share: float = 0.0


def patchify(scene: Scene) -> tuple[np.ndarray, tuple[int, int]]:
    """Patches [100, 588] uint8 in Qwen order, padded with zeros, and (rows, columns) of patches."""
    pixels = np.asarray(scene.image)
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    blocks = pixels.reshape(rows // 2, 2, PATCH, columns // 2, 2, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    patches = np.zeros((PATCHES, 3 * PATCH * PATCH), dtype=np.uint8)
    patches[: rows * columns] = blocks.reshape(rows * columns, -1)
    return patches, (rows, columns)


class Packer:
    """Turns scenes and dialogues into token sequences."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        self.length = length
        self._tokenizer = tokenizer
        self._short = lru_cache(maxsize=50_000)(self._encode)
        self._image = self._encode("<|image_pad|>")
        self._pad = tokenizer.pad_token_id
        self._open = self._encode("<|im_start|>user\n")
        self._start, self._end = self._encode("<|vision_start|>"), self._encode("<|vision_end|>")
        self._answer, self._stop = (
            self._encode("<|im_end|>\n<|im_start|>assistant\n"),
            self._encode("<|im_end|>"),
        )
        self._next = self._encode("\n<|im_start|>user\n")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def opening(self, grids: list[tuple[int, int]]) -> tuple[list[int], np.ndarray, list[int]]:
        """Tokens, positions [3, n] and cell numbers (image * 25 + cell, or -1) of the opening."""
        ids, cells, spans = list(self._open), [-1] * len(self._open), []
        place = len(ids)
        spans.append(np.tile(np.arange(place), (3, 1)))
        for image, (rows, columns) in enumerate(grids):
            height, width = rows // 2, columns // 2
            ids += [*self._start, *self._image * (height * width), *self._end]
            cells += [-1, *(image * CELLS + cell for cell in range(height * width)), -1]
            across = np.indices((1, height, width)).reshape(3, -1) + place + 1
            after = place + 1 + max(height, width)
            spans += [np.full((3, 1), place), across, np.full((3, 1), after)]
            place = after + 1
        return ids, np.concatenate(spans, axis=1), cells

    def block(self, turns: tuple[Turn, ...]) -> tuple[list[int], list[float]]:
        """Tokens of a dialogue after the images, and for each token its weight as a label."""
        ids: list[int] = []
        weights: list[float] = []
        for turn in turns:
            question = [*(self._next if ids else []), *self._short(turn.question), *self._answer]
            answer = self._encode(turn.answer) if _BOX in turn.answer else self._short(turn.answer)
            ids += [*question, *answer, *self._stop]
            worth = 1.0 if len(answer) > 4 else 3.0
            weights += [*[0.0] * len(question), *[worth] * len(answer), 0.3]
        return ids, weights

    def sequence(
        self, grids: list[tuple[int, int]], dialogues: Iterator[tuple[Turn, ...]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fill one sequence: ids, positions [3, L], blocks, cells and label weights, each padded."""
        ids, positions, cells = self.opening(grids)
        blocks, weights, spans = [0] * len(ids), [0.0] * len(ids), [positions]
        first, refused = int(positions.max()) + 1, 0
        while refused < 4:
            tokens, worth = self.block(next(dialogues))
            if len(ids) + len(tokens) > self.length:
                refused += 1
                continue
            spans.append(np.tile(np.arange(first, first + len(tokens)), (3, 1)))
            blocks += [blocks[-1] + 1] * len(tokens)
            ids, weights, cells = ids + tokens, weights + worth, cells + [-1] * len(tokens)
        short = self.length - len(ids)
        return (
            np.pad(ids, (0, short), constant_values=self._pad),
            np.pad(np.concatenate(spans, axis=1), ((0, 0), (0, short))),
            np.pad(blocks, (0, short), constant_values=-1),
            np.pad(cells, (0, short), constant_values=-1),
            np.pad(weights, (0, short)),
        )


class Batches(IterableDataset[Batch]):
    """Endless batches; batch `i` depends on the plan, its seed and `i` only."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, plan: Plan, first: int = 0) -> None:
        self._packer = Packer(tokenizer, plan.length)
        self._plan = plan
        self._first = first

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        index, step = self._first + (worker.id if worker else 0), worker.num_workers if worker else 1
        while True:
            yield self.batch(index)
            index += step

    def batch(self, index: int) -> Batch:
        """Draw and pack batch number `index`."""
        rng = random.Random(self._plan.seed * 1_000_003 + index)
        images = 2 if rng.random() < self._plan.two_images_share else 1
        easy = min(1.0, (index + 1) / max(1, self._plan.easy_batches))
        groups = [
            [self._scene(rng, index, number * images + image, easy) for image in range(images)]
            for number in range(self._plan.sequences // images)
        ]
        return self._pack(groups, rng)

    def _scene(self, rng: random.Random, index: int, number: int, easy: float) -> Scene:
        plan = self._plan
        seed = (plan.seed * 1_000_003 + index) * 4096 + number
        most = max(1, round(easy * plan.max_objects)) if rng.random() < 0.85 else plan.max_objects
        return draw_scene(
            seed % HELD_OUT_SEED,
            max_objects=most,
            size=rng.choice(CANVASES) if rng.random() < plan.canvas_share else (5 * CELL, 5 * CELL),
            stretch=0.16 if rng.random() < 0.5 else 0.0,
            noise=rng.randint(3, 14) if rng.random() < plan.noise_share else 0,
            jpeg_quality=rng.randint(40, 95) if rng.random() < plan.jpeg_share else None,
        )

    def _pack(self, groups: list[list[Scene]], rng: random.Random) -> Batch:
        patches, grids, rows = [], [], []
        for group in groups:
            parts = [patchify(scene) for scene in group]
            rows.append(self._packer.sequence([grid for _, grid in parts], _dialogues(group, rng)))
            patches += [part for part, _ in parts]
            grids += [grid for _, grid in parts]
        ids, positions, blocks, cells, weights = (np.stack(column) for column in zip(*rows, strict=True))
        shift = (np.arange(len(groups)) * len(groups[0]) * CELLS)[:, None]
        cells = np.where(cells >= 0, cells + shift, -1)
        targets, labels, worth = _answers(ids, weights, self._plan.length)
        return Batch(
            torch.from_numpy(np.stack(patches)), torch.tensor(grids), torch.from_numpy(ids),
            torch.from_numpy(positions.transpose(1, 0, 2).copy()), torch.from_numpy(blocks),
            torch.from_numpy(cells), targets, labels, worth,
        )  # fmt: skip


def _dialogues(group: list[Scene], rng: random.Random) -> Iterator[tuple[Turn, ...]]:
    if len(group) == 1:
        return endless(group[0], rng)
    return iter(lambda: (ask_two(group[0], group[1], rng),), None)


def _answers(
    ids: np.ndarray, weights: np.ndarray, length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where answers are predicted from, padded to a fixed number so that every step has the same shapes."""
    row, column = np.nonzero(weights[:, 1:])
    room = ids.shape[0] * length * 5 // 16
    targets = np.zeros(room, dtype=np.int64)
    labels, worth = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.float32)
    used = min(room, row.size)
    targets[:used] = (row * length + column)[:used]
    labels[:used] = ids[row, column + 1][:used]
    worth[:used] = weights[row, column + 1][:used]
    return torch.from_numpy(targets), torch.from_numpy(labels), torch.from_numpy(worth)
