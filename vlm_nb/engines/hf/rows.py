"""From an encoded request to a row of the loaded model: how long it may get, and what ends it."""

from __future__ import annotations

from ..base import Ticket
from ..runaway import LoopWatch
from .batching import Row
from .decoding import TextStream
from .encoding import Encoded
from .opening import Loaded
from .sampling import Sampler


def row_of(loaded: Loaded, ticket: Ticket, sampler: Sampler, encoded: Encoded) -> Row:
    """The row of a request whose prompt fits into the context."""
    settings = ticket.request.generation
    return Row(
        ticket=ticket,
        encoded=encoded,
        sampler=sampler,
        stream=TextStream(
            loaded.tokenizer, skip_special=not ticket.request.keep_special_tokens, stop=settings.stop
        ),
        limit=limit_of(loaded, encoded, settings.max_new_tokens),
        eos=loaded.eos,
        image_token=loaded.encoder.image_token,
        start=loaded.start,
        watch=LoopWatch.of_tokens(after=settings.min_new_tokens) if settings.cut_repeats else None,
    )


def limit_of(loaded: Loaded, encoded: Encoded, asked: int) -> int:
    """The new tokens that there is room for, at most ``asked``."""
    own_places = loaded.start is not None  # an encoder-decoder's answer does not follow its prompt
    before = 0 if own_places else encoded.prompt_tokens
    return asked if loaded.context is None else min(asked, loaded.context - before)
