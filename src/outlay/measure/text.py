"""How varied are the words of a list of texts? For prompts and for responses, separately.

Both numbers change with the amount of text, so lists are compared at the same number of tokens: `shorten` takes texts in an
order fixed by a hash of each text (not of its place), whole ones first, and cuts the last one where the count is full.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence

from ..errors import DataError
from ..seeds import lottery

TOKEN = re.compile(r"\w+|[^\w\s]")  # words and single signs; no model's tokenizer, so numbers of different models compare


def tokens(text: str) -> list[str]:
    """Words, numbers and signs, in lower case."""
    return TOKEN.findall(text.lower())


def shorten(texts: Sequence[str], length: int) -> list[list[str]]:
    """Texts as tokens, `length` of them in all. The order of `texts` does not matter. DataError if there are fewer."""
    left, taken = length, []
    draw = lottery(0, texts, "measure", "shorten") if texts else []
    for _, text in sorted(zip(draw, texts, strict=True)):
        if not left:
            break
        found = tokens(text)[:left]
        if found:
            taken.append(found)
            left -= len(found)
    if left:
        raise DataError(f"{len(texts)} texts have {length - left} tokens together, {length} are asked for; compare at a smaller number")
    return taken


def distinct(pieces: Sequence[Sequence[str]], n: int) -> float:
    """distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams / all tokens, 0 to 1; NaN without tokens. It falls with
    length (Liu et al. 2022), so compare equal lengths only. No n-gram reaches over the end of a text."""
    grams = {tuple(piece[i : i + n]) for piece in pieces for i in range(len(piece) - n + 1)}
    total = sum(len(piece) for piece in pieces)
    return len(grams) / total if total else math.nan


def compression_ratio(pieces: Sequence[Sequence[str]]) -> float:
    """Bytes / bytes after DEFLATE, texts one a line: higher is more repetitive; NaN without tokens.

    Shaib et al. 2024 (arXiv 2403.00553): it says what slow n-gram overlap scores such as self-BLEU say, in linear time. It sees
    repetitions within 32 KB, so give it texts in a mixed order, as `shorten` does.
    """
    raw = "\n".join(" ".join(piece) for piece in pieces).encode()
    return len(raw) / len(zlib.compress(raw, 9)) if raw else math.nan


def panel(texts: Sequence[str], length: int | None = None) -> dict[str, float]:
    """All measures of one list at `length` tokens (None: all it has)."""
    pieces = shorten(texts, sum(len(tokens(text)) for text in texts) if length is None else length)
    return {"tokens": sum(map(len, pieces)), "distinct_1": distinct(pieces, 1), "distinct_2": distinct(pieces, 2), "compression_ratio": compression_ratio(pieces)}


def compare(lists: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """`panel` of several lists, e.g. what each strategy bought, all at the number of tokens of the shortest."""
    length = min((sum(len(tokens(text)) for text in texts) for texts in lists.values()), default=0)
    return {name: panel(texts, length) for name, texts in lists.items()}
