"""The loss of a batch through the model's own forward, and first weights that learn fast.

The vision tower runs once an image; its features go to the rows about it as ``mm_encoder_outputs``, which
every family takes. Everything else is the Hugging Face class as it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lessons import KNOWN_SHAPES, ROWS, Batch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText

from vlm_nb.demo.scenes import COLOURS

EMBEDDING_STD = 0.06
LOUD = 8.0
"""Makes the helper's first scores of numbers a few nats apart; growing to that takes hundreds of steps."""

SIDES = 3.0
"""The rotary pair of about 20 patches a turn begins with this bias: a patch counts half of its neighbour."""


def first_model(config: Any, numbers: list[int], seed: int) -> Any:
    """Return a fresh fp32 model; near numbers start with embeddings that look alike."""
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if is_matrix(name, weight):
                weight.normal_(std=0.6 / math.sqrt(weight.shape[1]))
        words = model.get_input_embeddings().weight
        words.normal_(std=EMBEDDING_STD)
        words[numbers] = EMBEDDING_STD * math.sqrt(2) * _waves(torch.arange(len(numbers)), words.shape[1])
        for name, weight in model.named_parameters():
            if name.endswith(("pos_embed.weight", "position_embedding.weight")):
                _start_places(weight)
            if name.endswith(("row_embeddings.weight", "column_embeddings.weight")):
                places = torch.arange(len(weight)) * 1000 / len(weight)
                weight[:] = 0.3 * _waves(places, weight.shape[1])
        if config.model_type == "qwen2_vl":
            _start_sides(model.model.visual)
    return model


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a parameter is a matrix inside the network, not a table of embeddings."""
    return weight.ndim == 2 and "embed" not in name and not name.endswith("shared.weight")


def take(model: Any, folder: Path, below: str = "") -> int:
    """Begin with another model's weights where names (from ``below`` on) and shapes agree.

    Returns how many tensors did; raises ValueError where none did. They are read by their class, which names
    them otherwise than their file does.
    """
    weights = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    saved = {name[name.find(below) :]: weight for name, weight in weights.items() if below in name}
    taken = 0
    for name, own in model.state_dict().items():
        weight = saved.get(name[name.find(below) :]) if below in name else None
        if weight is not None and weight.shape == own.shape:
            own.copy_(weight)
            taken += 1
    if not taken:
        raise ValueError(f"{folder}: no tensor has the name and shape of one here")
    return taken


def _waves(values: Tensor, width: int) -> Tensor:
    """Fourier features of the values, 0..1000: [n, width]."""
    periods = torch.logspace(math.log10(80.0), math.log10(2400.0), width // 2)
    angles = 2 * math.pi * values[:, None] / periods
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _start_places(weight: Tensor) -> None:
    """The vision tower's learned places begin as waves of their row and of their column."""
    side = math.isqrt(weight.shape[0])  # a class token, if there is one, comes first and is left as it is
    steps = torch.arange(side * side)
    half = weight.shape[1] // 2
    rows, columns = (_waves(place * 1000 / side, half) for place in (steps // side, steps % side))
    weight[-side * side :] = 0.3 * torch.cat((rows, columns), dim=1)


def _start_sides(tower: Any) -> None:
    """Two heads of a tower with rotary places only begin by looking to one side of each patch.

    How much of its own weight a patch keeps then tells how many patches lie on that side: its place. The
    first block looks to the right and down, the second to the left and up.
    """
    for block, sign in zip(tower.blocks[:2], (SIDES, -SIDES), strict=True):
        attention = block.attn
        bias = attention.qkv.bias.view(3, attention.num_heads, 2, 2, -1)  # q k v, head, half, axis, frequency
        bias[0, :, 0, :, 1] = torch.eye(2) * SIDES
        bias[1, :, 1, :, 1] = torch.eye(2) * sign


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean losses in nats: ``total`` is what is trained on, ``glimpse`` the helper's of coordinates."""

    total: Tensor
    coordinates: Tensor
    words: Tensor
    glimpse: Tensor


class Glimpse(nn.Module):
    """A helper for training only: what the image token under an object's centre says of that object.

    Four matrices turn it into the object's coordinates over the model's own number embeddings, two more into
    colour and shape, and one vector says where the centres are. So the vision tower learns from every object
    at once, and the language model has only to look it up.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.boxes = nn.Linear(width, 4 * width)
        self.kinds = nn.Linear(width, len(COLOURS) + len(KNOWN_SHAPES))
        self.centre = nn.Linear(width, 1)

    def forward(self, features: Tensor, batch: Batch, numbers: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        """Mean losses of boxes and of the rest.

        ``features`` [T, width] are all image tokens of the batch, ``numbers`` [n, width] the embeddings.
        """
        features = functional.rms_norm(features, features.shape[-1:])
        chosen = features[batch.places]
        logits = LOUD * self.boxes(chosen).view(-1, 4, features.shape[1]) @ numbers.T
        boxes = -(soft[batch.boxes] * logits.log_softmax(-1)).sum(-1).mean()
        colours, shapes = self.kinds(chosen).split((len(COLOURS), len(KNOWN_SHAPES)), dim=-1)
        kinds = functional.cross_entropy(colours, batch.kinds[:, 0])
        kinds = kinds + functional.cross_entropy(shapes, batch.kinds[:, 1])
        centres = torch.zeros(len(features)).index_fill(0, batch.places, 1.0)
        where = functional.binary_cross_entropy_with_logits(self.centre(features)[:, 0], centres)
        return boxes, 0.5 * kinds + 2.0 * where


class Learner(nn.Module):
    """A model, its helper and its loss; ``numbers`` are the ids of the coordinates in order of value."""

    def __init__(self, model: Any, numbers: list[int], sigma: float) -> None:
        super().__init__()
        self.model = model
        self.numbers = nn.Buffer(torch.tensor(numbers), persistent=False)
        places = torch.arange(len(numbers))
        soft = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
        self.soft = nn.Buffer(soft / soft.sum(1, keepdim=True), persistent=False)
        self.glimpse = Glimpse(model.get_input_embeddings().weight.shape[1])

    def forward(self, batch: Batch, helped: float) -> Losses:
        """``helped`` weighs the helper's loss."""
        seen, boxes, rest = self._look(batch)
        states = self._states(seen, batch).flatten(0, 1)[batch.targets]
        likely = self.model.lm_head(states).float().log_softmax(-1)
        number = batch.values >= 0
        hard = -likely.gather(1, batch.labels[:, None])[:, 0][~number]
        spread = -(self.soft[batch.values[number]] * likely[number][:, self.numbers]).sum(-1)
        total = (spread.sum() + hard.sum()) / len(likely) + helped * (boxes + rest)
        return Losses(total, spread.mean(), hard.mean(), boxes)

    def look(self, batch: Batch) -> Losses:
        """The helper's loss alone, for batches without rows."""
        _, boxes, rest = self._look(batch)
        return Losses(boxes + rest, torch.zeros(()), torch.zeros(()), boxes)

    def _look(self, batch: Batch) -> tuple[Any, Tensor, Tensor]:
        """Image features, and the helper's losses on them."""
        seen = self.model.get_image_features(**batch.pixels, return_dict=True)
        flat = torch.cat([part.reshape(-1, part.shape[-1]) for part in seen.pooler_output])
        words = self.model.get_input_embeddings().weight[self.numbers]
        return seen, *self.glimpse(flat, batch, words, self.soft)

    def _states(self, seen: Any, batch: Batch) -> Tensor:
        inputs = dict(batch.inputs)
        if "decoder_input_ids" in inputs:
            return self._decoded(seen, inputs)
        if "image_grid_thw" in batch.pixels:
            inputs["image_grid_thw"] = batch.pixels["image_grid_thw"].repeat_interleave(ROWS, 0)
        out = self.model.model(**inputs, mm_encoder_outputs={"image": _repeated(seen)}, use_cache=False)
        states: Tensor = out.last_hidden_state
        return states

    def _decoded(self, seen: Any, inputs: dict[str, Tensor]) -> Tensor:
        """An encoder-decoder takes features as embeddings only; the states are those of its decoder."""
        ids, features = inputs.pop("input_ids"), _each(seen.pooler_output)
        words = self.model.get_input_embeddings()(ids)
        mask = self.model.get_placeholder_mask(ids, words, features)
        out = self.model.model(inputs_embeds=words.masked_scatter(mask, features), **inputs, use_cache=False)
        states: Tensor = out.last_hidden_state
        return states


def _repeated(seen: Any) -> Any:
    """The features of each image once for every row about it."""
    made = type(seen)(pooler_output=_each(seen.pooler_output))
    if getattr(seen, "deepstack_features", None):
        made.deepstack_features = [_each(layer) for layer in seen.deepstack_features]
    return made


def _each(features: Any) -> Any:
    if isinstance(features, Tensor):
        return features.repeat_interleave(ROWS, 0)
    return tuple(part for part in features for _ in range(ROWS))
