"""Features of images that were seen before, in place of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .batching import Row, joined
from .kept import Kept


def image_counts(row: Row, merge: int | None) -> list[tuple[int, int]] | None:
    """(rows of ``pixel_values``, tokens) of each image of ``row``; None where they cannot be told apart.

    ``merge`` is how many patches on a side make one token, for models that pack patches.
    """
    inputs, keys = row.encoded.inputs, row.encoded.image_keys
    pixels, grid, tokens = inputs.get("pixel_values"), inputs.get("image_grid_thw"), row.encoded.image_tokens
    if pixels is None or not tokens or len(keys) != (len(grid) if grid is not None else len(pixels)):
        return None
    if grid is None:
        plain = pixels.ndim == 4 and not {"image_sizes", "pixel_attention_mask"} & set(inputs)
        return [(1, tokens // len(keys))] * len(keys) if plain and tokens % len(keys) == 0 else None
    patches: list[int] = grid.prod(-1).tolist()
    if not merge or sum(patches) != len(pixels) or sum(patches) != tokens * merge**2:
        return None
    return [(count, count // merge**2) for count in patches]


@dataclass(frozen=True, slots=True)
class Seen:
    """Features of one image: ``pooled`` [tokens, size], ``deep`` the same for deeper layers where used."""

    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.nbytes for part in (self.pooled, *self.deep))


class Features:
    """Image features of one model by the hash of the prepared pixels."""

    def __init__(self, cap: int, merge: int | None) -> None:
        self.kept: Kept[Seen] = Kept(cap)
        self._merge = merge
        self._kind: Any = None

    def stand_in(self, rows: Sequence[Row]) -> bool:
        """Whether all rows have images whose features can be told apart, and so handed over for pixels."""
        return all(image_counts(row, self._merge) is not None for row in rows)

    def of(
        self, model: Any, images: Sequence[tuple[Row, int]], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """What the model takes in place of the pixels of ``images``: rows, and places among a row's images.

        They are in the order of the prompts. Unknown ones are computed in one call.
        """
        found, missing = dict[str, Seen](), dict[str, dict[str, torch.Tensor]]()
        keys = [row.encoded.image_keys[place] for row, place in images]
        for (row, place), key in zip(images, keys, strict=True):
            known = self.kept.get(key)
            if known is not None:
                found[key] = known
            elif key not in missing:
                missing[key] = self._part(row, place)
        if missing:
            found |= self._compute(model, missing, device, dtype)
        return {"mm_encoder_outputs": {"image": self._output([found[key] for key in keys])}} if keys else {}

    def _output(self, images: Sequence[Seen]) -> Any:
        """The features as the model hands them on."""
        made = self._kind(pooler_output=tuple(seen.pooled for seen in images))
        if images[0].deep:
            made.deepstack_features = [tuple(parts) for parts in zip(*(s.deep for s in images), strict=True)]
        return made

    def _part(self, row: Row, place: int) -> dict[str, torch.Tensor]:
        """The tensors of one image of ``row``."""
        inputs, counts = row.encoded.inputs, [count for count, _ in image_counts(row, self._merge) or ()]
        first = sum(counts[:place])
        part = {"pixel_values": inputs["pixel_values"][first : first + counts[place]]}
        if "image_grid_thw" in inputs:
            part["image_grid_thw"] = inputs["image_grid_thw"][place : place + 1]
        return part

    def _compute(
        self,
        model: Any,
        missing: dict[str, dict[str, torch.Tensor]],
        device: torch.device,
        dtype: torch.dtype,
    ) -> dict[str, Seen]:
        parts = list(missing.values())
        inputs = {key: joined([part[key] for part in parts], device, dtype) for key in parts[0]}
        out = model.get_image_features(**inputs, return_dict=True)
        self._kind = type(out)
        deep = getattr(out, "deepstack_features", None) or []
        found = {}
        for n, key in enumerate(missing):
            # copies: a part of the whole would keep all of it
            seen = Seen(out.pooler_output[n].clone(), tuple(layer[n].clone() for layer in deep))
            self.kept.put(key, seen, seen.size)
            found[key] = seen
        return found
