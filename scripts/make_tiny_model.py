"""Make the shipped tiny model: a character tokenizer and a Llama of 1.8 million parameters, pre-trained on the skills.

    python scripts/make_tiny_model.py --out src/outlay/models/tiny --tokens 14e6 --threads 2

The same arguments, seed, thread count and torch version give the same weights. Interrupted, it goes on from the last
checkpoint in --scratch.
"""

from __future__ import annotations

import argparse
import json
import math
import string
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM

from outlay.pools.skills import pretraining_documents
from outlay.seeds import seed as stream_seed

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
CHARACTERS = "\n" + string.digits + string.ascii_letters + string.punctuation + " "
ROW = 256  # tokens of a training row
BATCH = 8  # rows of an update
PEAK_LR, WARM_UP, DECAY = 2e-3, 200, 0.3  # warm-up in updates; the last share of the updates, over which it falls to 0
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'A: ' + message['content'] + eos_token }}"
    "{% else %}{{ 'Q: ' + message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)


def write_tokenizer(out: Path) -> dict[str, int]:
    """One token a character: a BPE without merges needs no pre-tokenizer and no code of its own. -> the vocabulary."""
    vocabulary = {token: i for i, token in enumerate([PAD, BOS, EOS, UNK, *CHARACTERS])}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token=UNK))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([PAD, BOS, EOS, UNK])
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": ROW,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return vocabulary


def training_rows(vocabulary: dict[str, int], tokens: int, seed: int) -> np.ndarray:
    """Documents as <bos> text <eos>, one after another; every row begins with a document, its last one is cut off.

    -> (n, ROW) uint8
    """
    table = np.zeros(128, np.uint8)
    for character in CHARACTERS:
        table[ord(character)] = vocabulary[character]
    rows = np.zeros((math.ceil(tokens / ROW), ROW), np.uint8)
    documents = pretraining_documents(seed, tokens)  # more than enough: each has many tokens
    for row in rows:
        filled = 0
        while filled < ROW:
            text = table[np.frombuffer(next(documents).encode("ascii"), np.uint8)]
            document = np.concatenate(([vocabulary[BOS]], text, [vocabulary[EOS]]))[: ROW - filled]
            row[filled : filled + len(document)] = document
            filled += len(document)
    return rows


def new_model(vocabulary: dict[str, int], seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)  # a script, one process: the initial weights have no other door
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=2 * ROW,
            tie_word_embeddings=True,
            pad_token_id=vocabulary[PAD],
            bos_token_id=vocabulary[BOS],
            eos_token_id=vocabulary[EOS],
        )
    )


def learning_rate(update: int, updates: int) -> float:
    """Warm up, stay, fall linearly to zero. While it stays, the run does not depend on its length: a shorter one may
    start from the checkpoint of a longer one and gives what it would have given from the beginning."""
    return PEAK_LR * min(1, update / WARM_UP, (updates - update + 1) / (DECAY * updates))


def train(model: LlamaForCausalLM, rows: np.ndarray, scratch: Path, minutes: float) -> list[tuple[int, float]]:
    """Train on each row once. -> (tokens seen, mean loss in nats since the last entry)"""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95), fused=True)
    updates, first, curve = len(rows) // BATCH, 0, []
    saved = scratch / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        if state["updates"] != updates and state["done"] > (1 - DECAY) * min(updates, state["updates"]):
            raise SystemExit(f"{saved} is of another run ({state['updates']} updates, not {updates}), and too late: delete it")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, curve = state["done"], state["curve"]
    model.train()
    began = last_saved = time.monotonic()
    losses: list[float] = []
    for update in range(first, updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update + 1, updates)
        batch = torch.from_numpy(rows[update * BATCH : (update + 1) * BATCH].astype(np.int64))
        logits = model(batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        done, now = update + 1, time.monotonic()
        if done % 100 == 0 or done == updates:
            curve.append((done * BATCH * ROW, round(sum(losses) / len(losses), 4)))
            rate = (done - first) * BATCH * ROW / (now - began)
            left = (updates - done) * BATCH * ROW / rate / 60
            print(f"{curve[-1][0]:>9} tokens  loss {curve[-1][1]:.4f}  {rate:.0f} tokens/s  {left:.1f} min left", flush=True)
            losses = []
            # Only here: a resumed run then reports the same curve.
            if now - last_saved > 60 * minutes and done < updates:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "done": done, "curve": curve}
                torch.save(state | {"updates": updates}, saved.with_suffix(".part"))
                saved.with_suffix(".part").replace(saved)
                last_saved = now
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/outlay/models/tiny"))
    parser.add_argument("--scratch", type=Path, default=Path("build/tiny"), help="checkpoint and loss curve")
    parser.add_argument("--tokens", type=float, default=14e6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-minutes", type=float, default=8)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    args.scratch.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    vocabulary = write_tokenizer(args.out)
    rows = training_rows(vocabulary, int(args.tokens), stream_seed(args.seed, "tiny", "documents"))
    model = new_model(vocabulary, stream_seed(args.seed, "tiny", "weights"))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {rows.size} tokens", flush=True)
    curve = train(model, rows, args.scratch, args.checkpoint_minutes)
    (args.scratch / "curve.json").write_text(json.dumps(curve))
    model.generation_config.update(do_sample=False, max_new_tokens=16)
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
