"""What tests of every sink share."""

from collections.abc import Iterable
from typing import Any

from agent_party.projections.sink import NO_LETTERS, Checkpoint, Letters, Named, Sink, Sizes


async def moved(
    sink: Sink[Any, Any], of: Named, writes: Iterable[Any], sizes: Sizes | None = None, letters: Letters = NO_LETTERS
) -> Checkpoint:
    """Apply writes after what stands, as those of one more commit of slice 0, or of all up to ``sizes``."""
    before = await sink.checkpoint(of)
    after = await sink.apply(of, before, sizes or {0: before.sizes.get(0, 0) + 1}, writes, letters)
    assert after is not None, "another one was faster"
    return after
