"""Keys and values of prompts' beginnings that were computed before: a further question, the next turn.

A beginning is found by content: its tokens, and its images by the hash of their prepared pixels. All of it
belongs to one loaded model, and is bounded in bytes; the least recently used goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from . import gate
from .batching import Row, collate
from .features import Features, image_counts
from .kept import Kept
from .leftpad import Block

LEAST = 16  # fewer known tokens are not worth a call of their own


@dataclass(frozen=True, slots=True)
class Beginning:
    """``marks`` [tokens] are tokens, those of images by content; ``layers`` are their keys and values.

    Keys and values are [heads, tokens, size].
    """

    marks: torch.Tensor
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


NOTHING = Beginning(torch.empty(0, dtype=torch.long), ()), 0


class Reuse:
    """What one loaded model need not compute again. ``features`` and ``prefixes`` are None where unsafe.

    ``checked`` is set once the model's cache has been seen to be as expected.
    """

    def __init__(self, model: Any, cap: int) -> None:
        vision = getattr(model.config, "vision_config", None)
        self.checked = False
        self._merge: int | None = getattr(vision, "spatial_merge_size", None)
        shares = gate.may_share_features(model)
        self.features = Features(cap // 2, self._merge) if shares else None
        self.prefixes: Kept[Beginning] | None = (
            Kept(cap // 2) if shares and gate.may_share_prefixes(model) else None
        )

    def clear(self) -> bool:
        """Forget everything; whether there was anything."""
        kept = [self.prefixes, self.features.kept if self.features is not None else None]
        held = sum(part.bytes for part in kept if part is not None)
        for part in kept:
            if part is not None:
                part.clear()
        return held > 0

    # Finding ------------------------------------------------------------------------------------------------

    def known(self, row: Row) -> int:
        """How many tokens at the start of the row's prompt are known; 0 if too few to matter."""
        found = self._find(row)
        return 0 if found is None else found[1]

    def _find(self, row: Row) -> tuple[Beginning, int] | None:
        kept = self.prefixes.get(_family(row)) if self.prefixes is not None else None
        marks = self._marks(row) if kept is not None else None
        if kept is None or marks is None:
            return None
        most = min(len(kept.marks), len(marks) - 1)  # one token is left to ask with
        differs = (kept.marks[:most] != marks[:most]).nonzero()
        same = int(differs[0]) if len(differs) else most
        return (kept, same) if same >= LEAST else None

    def _marks(self, row: Row) -> torch.Tensor | None:
        """The row's tokens, [length], those of images replaced by their content; None if that is unclear."""
        ids = row.ids[0]
        if not row.encoded.image_keys:
            return ids
        counts = image_counts(row, self._merge)
        if counts is None or row.image_token is None:
            return None
        signs = [int(key[:15], 16) for key in row.encoded.image_keys]
        marks = ids.clone()
        where = _image_places(row)
        marks[: len(where)][where] = torch.cat(
            [torch.full((tokens,), -1 - sign) for sign, (_, tokens) in zip(signs, counts, strict=True)]
        )
        return marks

    # Keeping ------------------------------------------------------------------------------------------------

    def remember_prompts(self, rows: Sequence[Row], block: Block) -> None:
        """After a prefill, keep the prompts with images of rows that nobody continues as a conversation."""
        for index, row in enumerate(rows):
            if row.encoded.image_keys and not row.ticket.request.interactive:
                self._remember(row, index, block)

    def remember_answers(self, rows: Sequence[Row], ended: Sequence[int], block: Block) -> None:
        """Keep prompt and answer of interactive rows: the next turn begins with them."""
        for index in ended:
            if rows[index].ticket.request.interactive:
                self._remember(rows[index], index, block)

    def _remember(self, row: Row, index: int, block: Block) -> None:
        marks = self._marks(row)
        if self.prefixes is None or marks is None:
            return
        length = int(block.mask[index].sum())
        layers = tuple(
            (layer.keys[index, :, -length:].clone(), layer.values[index, :, -length:].clone())
            for layer in block.cache.layers
        )
        kept = Beginning(marks[:length], layers)
        self.prefixes.put(_family(row), kept, kept.size)

    # Going on -----------------------------------------------------------------------------------------------

    def serves(self, rows: Sequence[Row]) -> bool:
        """Whether ``prefill`` can take these rows: beginnings may be shared, and images told apart.

        A model's first rows go through its own ``generate``, which shows what cache it makes.
        """
        told = (not row.encoded.image_keys or image_counts(row, self._merge) is not None for row in rows)
        return self.checked and self.prefixes is not None and all(told)

    def prefill(self, model: Any, rows: Sequence[Row], device: torch.device) -> tuple[Block, torch.Tensor]:
        """Prefill rows of one kind; of a prompt whose beginning is known only the rest is computed.

        Positions are those of the full prompts. The scores are float, [rows, vocabulary].
        """
        known = [self._find(row) or NOTHING for row in rows]
        starts = [same for _, same in known]
        rests = [row.length - start for row, start in zip(rows, starts, strict=True)]
        pad_id = model.generation_config.pad_token_id
        # on the CPU: what a model makes positions of, it looks at value by value
        inputs = collate(rows, pad_id, torch.device("cpu"), model.dtype, without=["pixel_values"])
        positions, rest = _positions(model, inputs).to(device), max(rests)
        mask = torch.cat([_ends(starts, device), _ends(rests, device)], dim=1)
        ids = inputs["input_ids"][:, -rest:].to(device)
        out = model(
            # a short rest's window begins within what is known: tokens of images there must not count
            input_ids=ids.masked_fill(mask[:, -rest:] == 0, pad_id),
            attention_mask=mask,
            position_ids=positions[..., -rest:],
            past_key_values=_cache(model, known, device),
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
            **self._joining(model, rows, starts, device),
        )
        for row, start in zip(rows, starts, strict=True):
            row.cached = start
        block = Block(out.past_key_values, mask, positions[..., -1:] + 1)
        if any(starts):
            block.compact()
        return block, out.logits[:, -1].float()

    def _joining(
        self, model: Any, rows: Sequence[Row], starts: Sequence[int], device: torch.device
    ) -> dict[str, Any]:
        """The features of images that come after the known beginnings."""
        images = []
        for row, start in zip(rows, starts, strict=True):
            where, first = _image_places(row).nonzero()[:, 0].tolist(), 0
            for place, (_, tokens) in enumerate(image_counts(row, self._merge) or ()):
                if where[first] >= start:
                    images.append((row, place))
                first += tokens
        assert self.features is not None  # noqa: S101 - as for prefixes
        return self.features.of(model, images, device, model.dtype)


def _family(row: Row) -> str:
    """Where the row's beginning is kept: by its first image, or with all the texts."""
    return next(iter(row.encoded.image_keys), "")


def _image_places(row: Row) -> torch.Tensor:
    """Where the prompt has image tokens, [tokens]."""
    return torch.eq(row.encoded.inputs["input_ids"][0], -1 if row.image_token is None else row.image_token)


def _positions(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Positions of whole prompts, as ``generate`` would compute them without a cache."""
    found: torch.Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], inputs)
    return found


def _ends(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """A mask [rows, longest] with as many ones at the end of each row."""
    width = max(lengths)
    columns = torch.arange(width, device=device)
    return (columns >= width - torch.tensor(lengths, device=device)[:, None]).long()


def _cache(model: Any, known: Sequence[tuple[Beginning, int]], device: torch.device) -> Any:
    """A fresh cache with the known beginnings, each at the end of its row."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    width = max(same for _, same in known)
    some = next((kept for kept, same in known if same), NOTHING[0])
    for index, like in enumerate(some.layers):
        rooms = [part.new_zeros(len(known), part.shape[0], width, part.shape[2]) for part in like]
        for row, (kept, same) in enumerate(known):
            for room, part in zip(rooms, kept.layers[index] if same else (), strict=False):
                room[row, :, width - same :] = part[:, :same]
        keys, values = (room.to(device) for room in rooms)
        cache.update(keys, values, index)
    return cache
