"""How near a text is to a gold answer: by what simulated experts prefer one to another."""

from __future__ import annotations

from difflib import SequenceMatcher


def nearness(draft: str, gold: str) -> float:
    """2 where it is the gold answer, blanks apart; else the similarity of their characters, 0 to 1, by Ratcliff & Metzener 1988: twice the
    characters in common blocks, as a share of both texts."""
    said, right = " ".join(draft.split()), " ".join(gold.split())
    return 2.0 if said == right else SequenceMatcher(None, right, said, autojunk=False).ratio()
