"""Where a response ends: at a token, before a string, or at the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .load import Loaded

# Tokens decoded beyond the length of the longest string: the first ones of a window may decode otherwise than within the text.
MARGIN = 8


@dataclass(frozen=True, slots=True)
class Ending:
    """A response that has ended: its tokens without the end token, its text, and whether it ended by itself, not at the limit."""

    tokens: list[int]
    text: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Until:
    """Finds the first of some strings in what has been generated so far."""

    loaded: Loaded
    strings: tuple[str, ...]

    def ended(self, said: Sequence[int], stops: frozenset[int], most: int) -> Ending | None:
        """How a response ends at the last of these tokens, the end token among them; None: it goes on. To be asked after every token."""
        if said[-1] in stops:
            return Ending(list(said[:-1]), self.text(said[:-1]), True)
        if (at := self.begins(said)) is not None:
            kept = self.cut(said, at)
            return Ending(kept, self.text(kept)[:at], True)
        return Ending(list(said), self.text(said), False) if len(said) == most else None

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a response, special tokens left out."""
        return self.loaded.tokenizer.decode(tokens, skip_special_tokens=True)

    def begins(self, tokens: Sequence[int]) -> int | None:
        """The character of the whole text at which the first of the strings begins; None: none of them is there.

        To be asked after every token: only the tail is decoded, unless a string is found there.
        """
        if not self.strings:
            return None
        # Every token that adds to the text adds at least a byte.
        window = max(len(s.encode()) for s in self.strings) + MARGIN
        if len(tokens) > window and _first(self.text(tokens[-window:]), self.strings) is None:
            return None
        return _first(self.text(tokens), self.strings)

    def cut(self, tokens: Sequence[int], at: int) -> list[int]:
        """The fewest first tokens whose text has the characters before `at`; the last one may reach beyond it."""
        kept = len(tokens)
        while kept and len(self.text(tokens[: kept - 1])) >= at:
            kept -= 1
        return list(tokens[:kept])


def _first(text: str, strings: Sequence[str]) -> int | None:
    found = [at for at in (text.find(s) for s in strings) if at >= 0]
    return min(found, default=None)
