"""Texts -> token ids. The one place that knows chat templates; training, scoring and evaluation all come through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import numpy as np

from ..errors import ConfigError, DataError
from .load import Loaded, arch, tokenizer_of

CONTENT = "\u27e6content\u27e7"  # stands for a text when a template is taken apart
ANSWER = "\u27e6answer\u27e7"
# Some templates print today's date or a thinking block: fixed, so that a model sees the same prompt every day.
TEMPLATE_OPTIONS = {"date_string": "01 Jan 2025", "enable_thinking": False}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text as the model reads it. `user`: the half-open span of tokens with the user's content; tokens from `answer` on are the
    response with its end token (none in a prompt alone)."""

    id: str
    ids: tuple[int, ...]
    user: tuple[int, int]
    answer: int


@dataclass(frozen=True, slots=True)
class Format:
    """What a template puts around texts. Make it with `format_of`.

    head, tail: before and after the prompt's text, up to where the model goes on. lead: between `tail` and the response in a whole
    conversation. end: the token after a response. stops: tokens that end generation.
    """

    template: Literal["chat", "plain", "raw"]
    head: str
    tail: str
    lead: str
    end: int
    stops: frozenset[int]


def format_of(loaded: Loaded, template: str) -> Format:
    """The format for a runtime's `template` ("auto", "chat", "plain"), or "raw": the text as it stands, which the model goes on with."""
    tokenizer = loaded.tokenizer
    if template == "chat" and not tokenizer.chat_template:
        raise ConfigError("template 'chat' asks for the tokenizer's chat template, and it has none; use template: auto or plain")
    stops = getattr(loaded.model.generation_config, "eos_token_id", None)
    stops = set(stops if isinstance(stops, list) else [stops]) | {tokenizer.eos_token_id}
    stops.discard(None)
    if template in ("plain", "raw") or not tokenizer.chat_template:
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no end token, so no response would ever end; set its eos_token")
        if template == "raw":
            return Format("raw", "", "", "", tokenizer.eos_token_id, frozenset(stops))
        return Format("plain", "", "\n", "", tokenizer.eos_token_id, frozenset(stops))

    opened = _chat(tokenizer, CONTENT)
    if opened.count(CONTENT) != 1:
        raise ConfigError(f"the chat template shows the prompt {opened.count(CONTENT)} times instead of once; use template: plain")
    head, tail = opened.split(CONTENT)
    before, _, after = _chat(tokenizer, CONTENT, ANSWER).partition(ANSWER)
    lead = before[len(opened) :] if before.startswith(opened) else ""
    following = tokenizer(after, add_special_tokens=False).input_ids
    end = following[0] if following and (following[0] in stops or following[0] in tokenizer.all_special_ids) else tokenizer.eos_token_id
    if end is None:
        raise ConfigError("the chat template puts no end token after a response and the tokenizer has none; set its eos_token")
    return Format("chat", head, tail, lead, end, frozenset(stops | {end}))


def prompts(loaded: Loaded, form: Format, ids: Sequence[str], texts: Sequence[str], *, room: int = 0) -> list[Rendered]:
    """Each prompt up to where the model's response begins. Raises DataError for an empty prompt, and for one that leaves fewer
    than `room` tokens of the context for the response."""
    if not ids:
        return []
    tokenizer = loaded.tokenizer
    plain = form.template != "chat"
    whole = [form.head + t + form.tail if plain else _chat(tokenizer, t) for t in texts]
    # A chat template writes its own special tokens; a plain text gets those that the tokenizer puts around any text.
    coded = tokenizer(whole, add_special_tokens=plain, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    rendered = []
    for name, text, full, tokens, offsets in zip(ids, texts, whole, coded.input_ids, coded.offset_mapping, strict=True):
        while plain and len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id:
            tokens, offsets = tokens[:-1], offsets[:-1]  # the model is to go on here
        first, last = _content(full, text, form, name)
        inside = [i for i, (a, b) in enumerate(offsets) if a < last and b > first and b > a]
        if not inside:
            raise DataError(f"prompt '{name}' is empty; remove it from the data")
        if len(tokens) + room > loaded.context:
            raise DataError(f"prompt '{name}' has {len(tokens)} tokens; with {room} new tokens it exceeds the model's context of {loaded.context}; shorten it, leave it out, or lower max_new_tokens")
        rendered.append(Rendered(name, tuple(tokens), (inside[0], inside[-1] + 1), len(tokens)))
    return rendered


def pairs(loaded: Loaded, form: Format, ids: Sequence[str], texts: Sequence[str], responses: Sequence[str], *, most: int | None = None) -> list[Rendered]:
    """Each prompt with its response and the end token.

    The response is tokenized on its own, so the prompt's tokens are exactly those that scoring sees. Raises DataError for an empty
    response, one that contains an end token, and one that would not fit whole into `most` tokens (default: the context).
    """
    if not ids:
        return []
    most = min(most or loaded.context, loaded.context)
    coded = loaded.tokenizer([form.lead + r for r in responses], add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
    rendered = []
    for prompt, response, tokens in zip(prompts(loaded, form, ids, texts), responses, coded, strict=True):
        if not response.strip() or not tokens:
            raise DataError(f"the response to prompt '{prompt.id}' is empty; nothing would be trained or measured; answer it or skip it")
        if form.stops & set(tokens):
            raise DataError(f"the response to prompt '{prompt.id}' contains the model's end token as text; remove it")
        whole = (*prompt.ids, *tokens, form.end)
        if len(whole) > most:
            raise DataError(f"prompt '{prompt.id}' with its response has {len(whole)} tokens and would be cut off at {most}; raise max_tokens, or leave it out")
        rendered.append(Rendered(prompt.id, whole, prompt.user, prompt.answer))
    return rendered


def lengths(base: str, template: str, texts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of prompts, (n,), and of their responses with the end token, (n,), as `prompts` and `pairs` make them, without the model's weights."""
    tokenizer = tokenizer_of(base)
    empty = Loaded(SimpleNamespace(generation_config=None), tokenizer, arch(base), 1 << 60)
    form = format_of(empty, template)
    asked = prompts(empty, form, [str(i) for i in range(len(texts))], texts)
    coded = tokenizer([form.lead + r for r in responses], add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
    return np.array([len(p.ids) for p in asked], dtype=np.int64), np.array([len(tokens) + 1 for tokens in coded], dtype=np.int64)


def _chat(tokenizer, text: str, response: str | None = None) -> str:
    turns = [{"role": "user", "content": text}]
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=response is None, **TEMPLATE_OPTIONS)


def _content(full: str, text: str, form: Format, name: str) -> tuple[int, int]:
    """The span of characters of the user's text; a template may have stripped its blanks."""
    if full.startswith(form.head) and full.endswith(form.tail):
        return len(form.head), len(full) - len(form.tail)
    at = full.find(text.strip())
    if at < 0:
        raise DataError(f"the chat template changes the text of prompt '{name}'; use template: plain")
    return at, at + len(text.strip())
