"""Train the embedded model: `python -m provider.embedded.making.train` (needs the extra `train`).

Documents are made while training, so none is seen twice. The loss counts only what the assistant
writes: the rest can't be known. Documents of like length go into one step of a fixed number of
tokens, one document a row. Muon updates the matrices, AdamW the embedding and the norms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from provider.embedded import MODEL_PATH
from provider.embedded.making.corpus import documents
from provider.embedded.making.network import Network
from provider.embedded.making.tokenizer import END, START, render, train_tokenizer

SEED = 20260
HELD_OUT_SEED = 1
HELD_OUT_BATCHES = 16
BUCKETS = (64, 96, 128, 192, 256, 320, 384, 512)  # row lengths, in tokens
TOKENS_A_STEP = 6144
LOG_EVERY = 100  # steps
SAVE_EVERY = 250
MUON_RATE = 0.012  # peak; scaled to the size of AdamW's updates
ADAM_RATE = 0.006
FALLING = 0.5  # share of the steps over which the rates fall to zero

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 192,
    "num_hidden_layers": 5,
    "intermediate_size": 512,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@dataclass
class Progress:
    """How far training has come; `loss` and `held_out_loss` are the newest."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0  # nats a token, the mean since the last report
    held_out_loss: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Rows of tokens `(rows, length)` and the mask of those that the loss counts."""

    tokens: Tensor
    mask: Tensor


class Encoder:
    """Turns documents into rows of tokens, with masks of the tokens that the loss counts."""

    def __init__(self, folder: Path):
        self._template = folder / "chat_template.jinja"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._end = self._tokenizer.token_to_id(END)
        self._think = self._tokenizer.token_to_id("<think>")
        header = f"{START}assistant\n"
        self._header = self._tokenizer.encode(header, add_special_tokens=False).ids

    def rows(self, seed: int) -> Iterator[tuple[list[int], list[int]]]:
        """Yield tokens and mask of one document after another, without end."""
        for document in documents(seed):
            text = render(self._template, document)
            tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(tokens) <= BUCKETS[-1]:
                yield tokens, self._mask(tokens)

    def _mask(self, tokens: list[int]) -> list[int]:
        mask, width = [0] * len(tokens), len(self._header)
        for start in range(len(tokens) - width):
            if tokens[start : start + width] != self._header:
                continue
            place = start + width
            place += tokens[place] == self._think  # opened by the prompt, never by the model
            while place < len(tokens):
                mask[place] = 1
                if tokens[place] == self._end:
                    break
                place += 1
        return mask


def batches(encoder: Encoder, seed: int) -> Iterator[Batch]:
    """Yield batches of about TOKENS_A_STEP tokens, with rows padded to one of BUCKETS; endless."""
    waiting: dict[int, list[tuple[list[int], list[int]]]] = {size: [] for size in BUCKETS}
    for tokens, mask in encoder.rows(seed):
        size = next(size for size in BUCKETS if len(tokens) <= size)
        rows = waiting[size]
        rows.append((tokens, mask))
        if len(rows) == TOKENS_A_STEP // size:
            padded = [row + [0] * (size - len(row)) for row, _ in rows]
            masks = [mask + [0] * (size - len(mask)) for _, mask in rows]
            yield Batch(torch.tensor(padded), torch.tensor(masks, dtype=torch.bool))
            waiting[size] = []


def loss_of(network: Network, batch: Batch) -> Tensor:
    """Return the mean cross-entropy, in nats a token, over what the mask counts."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(batch.tokens[:, :-1])
        wanted = batch.mask[:, 1:]
        logits = network.logits(hidden[wanted])
    return functional.cross_entropy(logits.float(), batch.tokens[:, 1:][wanted])


def rate_at(step: int, steps: int) -> float:
    """Return a step's share of the peak learning rate: warm-up, plateau, long fall to zero."""
    return min(1.0, step / 50, (steps - step) / (steps * FALLING))


def train(folder: Path, steps: int, log_path: Path) -> Progress:
    """Train from the beginning; the tokenizer must be in `folder`, the weights go there."""
    torch.manual_seed(SEED)
    encoder = Encoder(folder)
    network = Network(_config(folder))
    optimizers = (
        torch.optim.Muon(
            network.matrices(), lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(network.others(), lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    )
    held_out = list(itertools.islice(batches(encoder, HELD_OUT_SEED), HELD_OUT_BATCHES))
    progress, begin, losses = Progress(), time.perf_counter(), []
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log:
        for batch in itertools.islice(batches(encoder, SEED), steps):
            for optimizer, peak in zip(optimizers, (MUON_RATE, ADAM_RATE), strict=True):
                optimizer.param_groups[0]["lr"] = peak * rate_at(progress.step + 1, steps)
            losses.append(_step(network, batch, optimizers))
            progress.step += 1
            progress.tokens += batch.tokens.numel()
            if progress.step % LOG_EVERY == 0 or progress.step == steps:
                progress.seconds = round(time.perf_counter() - begin, 1)
                progress.loss, losses = sum(losses) / len(losses), []
                progress.held_out_loss = _evaluate(network, held_out)
                print(json.dumps(asdict(progress)), file=log, flush=True)
            if progress.step % SAVE_EVERY == 0 or progress.step == steps:
                save(network, folder)
    return progress


def _config(folder: Path) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    return {**CONFIG, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": end}


def _step(network: Network, batch: Batch, optimizers: tuple[torch.optim.Optimizer, ...]) -> float:
    loss = loss_of(network, batch)
    if not math.isfinite(loss.item()):
        raise RuntimeError("the loss is no longer a number: a rate is too high")
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


@torch.no_grad()
def _evaluate(network: Network, held_out: list[Batch]) -> float:
    return sum(loss_of(network, batch).item() for batch in held_out) / len(held_out)


def save(network: Network, folder: Path) -> None:
    """Write the weights in 16 bits, replacing the old file at once, and the configuration."""
    aside = folder / "aside.tmp"
    save_file(network.weights(), aside, metadata={"format": "mlx"})
    aside.replace(folder / "model.safetensors")
    text = json.dumps(network.config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Make the tokenizer, train, and write what the model card says of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=MODEL_PATH, help="with the chat template")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--log", type=Path, default=Path(".build/train.jsonl"))
    options = parser.parse_args()
    train_tokenizer(options.folder, SEED)
    progress = train(options.folder, options.steps, options.log)
    record = json.dumps({"seed": SEED, **asdict(progress)}, indent=2)
    (options.folder / "training.json").write_text(record + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
