"""What is attended to together: texts in a pass over prompts, rows in a step of decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .render import Rendered

if TYPE_CHECKING:
    import torch

# Rows that are attended to together at least, and the bytes of padding in keys and values that cost as much as another call.
BLOCK = 8
WASTE = 1 << 17


@dataclass(frozen=True, slots=True)
class Run:
    """Packed tokens [begin, begin + rows * length): `rows` texts of equal length. Each attends to the shared beginning, to `context`
    cached tokens of row `row`, and to itself. mask: (length, beginning + context + length) bool; None: causal, and nothing before.
    Or all packed tokens, padded to `length`: `padded` says which token stands at each place (rows * length,), `real` where each token
    stands."""

    begin: int
    rows: int
    length: int
    mask: torch.Tensor | None = None
    row: int = 0
    context: int = 0
    padded: torch.Tensor | None = None
    real: torch.Tensor | None = None

    @property
    def tokens(self) -> slice | torch.Tensor:
        """What picks its tokens out of the packed ones."""
        return slice(self.begin, self.begin + self.rows * self.length) if self.padded is None else self.padded


@dataclass(frozen=True, slots=True)
class Group:
    """Rows [begin, end) of at most `longest` cached tokens. mask: (rows * kv_heads, 1, longest), 0 or -inf."""

    begin: int
    end: int
    longest: int
    mask: torch.Tensor


def padded(lengths: Sequence[int], mask: torch.Tensor | None, device: torch.device) -> Run:
    """All packed texts of these lengths as one run, each padded on the right by its own last token."""
    import torch

    size, longest, begins = torch.tensor(lengths), max(lengths), torch.tensor([0, *lengths]).cumsum(0)[:-1]
    places = torch.arange(longest)
    token = (begins[:, None] + places.minimum(size[:, None] - 1)).flatten()
    real = (places < size[:, None]).flatten().nonzero()[:, 0]
    return Run(0, len(lengths), longest, mask, padded=token.to(device), real=real.to(device))


def alike(lengths: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """Neighbouring rows that are attended to together: (begin, end, greatest length), split where padding costs more than a call.
    size: bytes of keys and values a token."""
    ends: list[tuple[int, int]] = []  # (end, longest)
    begin = 0
    for at in range(0, len(lengths), BLOCK):
        end, longest = min(at + BLOCK, len(lengths)), max(lengths[at : at + BLOCK])
        if ends and (abs(longest - ends[-1][1]) * (end - at if longest < ends[-1][1] else at - begin) * size) < WASTE:
            ends[-1] = end, max(longest, ends[-1][1])
        else:
            begin = at
            ends.append((end, longest))
    begins = [0, *(end for end, _ in ends)]
    return [(begin, end, longest) for begin, (end, longest) in zip(begins, ends, strict=False)]


def chunks(prompts: Sequence[Rendered], most: int) -> Iterator[list[Rendered]]:
    """At most `most` tokens each, but at least one prompt."""
    part: list[Rendered] = []
    tokens = 0
    for prompt in prompts:
        if part and tokens + len(prompt.ids) > most:
            yield part
            part, tokens = [], 0
        part.append(prompt)
        tokens += len(prompt.ids)
    yield part
