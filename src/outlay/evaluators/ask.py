"""Put the items of a benchmark to a model: generate and read the answer, or compare the likelihoods of choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..engine.load import Loaded
from ..engine.runtime import Backend
from .answers import score
from .items import Benchmark, Item

if TYPE_CHECKING:
    from ..engine.render import Rendered

# Where a response ends that runs on into the next question of its own making. The published rule reads one line after the last
# marker, so text that begins with another "Q:" is no part of the answer; a model that only writes empty lines has ended too.
UNTIL = {"reasoned": ("\nQ:", "\n\n\n"), "direct": ("\nQ:", "\n\n")}


@dataclass(frozen=True, slots=True)
class Answered:
    """An item with what the model made of it. `answer`, `parsed`, `correct`, `lenient`: see answers.Score. `cut_off`: no end within
    the token limit. `too_long`: prompt and response do not fit into the model's context, so it was not asked; wrong. `tokens`:
    generated, end token included. `logprobs`: of each choice (nats). `note`: what else a reader of the score should know."""

    item: Item
    response: str = ""
    answer: str | None = None
    parsed: bool = False
    correct: bool = False
    lenient: bool = False
    cut_off: bool = False
    too_long: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    logprobs: tuple[float, ...] = ()
    note: str = ""


def ask(
    loaded: Loaded, bench: Benchmark, items: Sequence[Item], *, chat: bool, max_new_tokens: int, minibatch: int, on_answer: Callable[[Answered], None] | None = None, backend: Backend = "torch"
) -> list[Answered]:
    """Put these items of `bench` to the model; -> in their order. `on_answer` hears of each as it is done, in any order.

    backend: what decodes; likelihoods of choices are always ours. chat: the prompt is the user's message in the tokenizer's chat template, else it is read as it stands. Ask for all items of a
    task at once: the beginning that they share is then read once. Where prompts share none (`bench.alike`), ask for all together.
    """
    from ..engine.render import format_of, prompts

    form = format_of(loaded, "chat" if chat else "raw")
    roomy = replace(loaded, context=1 << 60)  # items that do not fit are counted here, not refused there
    asked = prompts(roomy, form, [i.id for i in items], [i.prompt for i in items])
    choices = [_choices(loaded, item, chat=chat) for item in items]
    room = [max((len(ids) for ids in options), default=max_new_tokens) for options in choices]
    done: dict[int, Answered] = {}

    def finish(row: int, answered: Answered) -> None:
        done[row] = answered
        if on_answer is not None:
            on_answer(answered)

    fitting = []
    for row, (prompt, new) in enumerate(zip(asked, room, strict=True)):
        if len(prompt.ids) + new > loaded.context:
            finish(row, Answered(items[row], too_long=True, prompt_tokens=len(prompt.ids)))
        else:
            fitting.append(row)
    some = [asked[row] for row in fitting]
    if bench.answers == "chosen":
        _choose(loaded, bench, [items[row] for row in fitting], some, [choices[row] for row in fitting], minibatch, lambda i, a: finish(fitting[i], a))
    else:
        _generate(loaded, bench, [items[row] for row in fitting], some, form.stops, max_new_tokens, minibatch, lambda i, a: finish(fitting[i], a), backend)
    return [done[row] for row in range(len(items))]


Finish = Callable[[int, Answered], None]


def _generate(loaded: Loaded, bench: Benchmark, items: Sequence[Item], asked: Sequence[Rendered], stops: frozenset[int], most: int, minibatch: int, finish: Finish, backend: Backend) -> None:
    from ..engine.generate import generate

    until = UNTIL[bench.answers]

    def read(row: int, tokens: Sequence[int], stopped: bool) -> None:
        item, response = items[row], loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        response = response[: min((at for at in map(response.find, until) if at >= 0), default=None)]  # the last token may reach into it
        got = score(response, item.target, cot=bench.answers == "reasoned", question=item.question)
        finish(row, Answered(item, response, got.answer, got.parsed, got.correct, got.lenient, not stopped, prompt_tokens=len(asked[row].ids), tokens=len(tokens) + stopped))

    generate(loaded, asked, stops=stops, max_new_tokens=most, minibatch=minibatch, until=until, on_finish=read, backend=backend)


def _choose(loaded: Loaded, bench: Benchmark, items: Sequence[Item], asked: Sequence[Rendered], choices: Sequence[Sequence[tuple[int, ...]]], minibatch: int, finish: Finish) -> None:
    from ..engine.choices import option_logprobs

    def read(row: int, values: np.ndarray) -> None:
        item = items[row]
        lengths = [len(text.strip()) if bench.per_character else 1 for text in item.choices]
        best = item.labels[int(np.argmax(values / np.array(lengths)))]
        right = best == item.target
        text = item.choices[item.labels.index(best)].strip()
        finish(row, Answered(item, text, best, True, right, right, prompt_tokens=len(asked[row].ids), logprobs=tuple(round(float(v), 4) for v in values)))

    option_logprobs(loaded, asked, choices, minibatch=minibatch, on_finish=read)


def _choices(loaded: Loaded, item: Item, *, chat: bool) -> list[tuple[int, ...]]:
    """The tokens of each choice as they follow the prompt. In a chat they begin the assistant's turn, without a blank."""
    code = loaded.tokenizer
    if chat:
        return [tuple(code(text.strip(), add_special_tokens=False).input_ids) for text in item.choices]
    # Behind the prompt's last line, because tokenizers treat the beginning of a text in their own ways.
    tail = item.prompt.rpartition("\n")[2]
    before = code(tail, add_special_tokens=False).input_ids
    found = []
    for text in item.choices:
        whole = code(tail + text, add_special_tokens=False).input_ids
        found.append(tuple(whole[len(before) :] if whole[: len(before)] == before else code(text, add_special_tokens=False).input_ids))
    return found
