"""Train the embedded model: `python -m provider.embedded.making.train` (needs the extra `train`).

Documents are made while training, so none is seen twice. The loss counts only what the assistant
writes: the rest can't be known. Documents of like length go into one step of a fixed number of
tokens, one document a row. Muon updates the matrices, AdamW the embedding and the norms.

With `--start` it begins from the weights and the tokenizer of a model that was trained before, which
forgets less at a smaller `--rate`. It keeps its state in a file; started again, it goes on from
there as if it had never stopped. As long as the rates have not begun to fall, the number of steps
may be another one.

With `--drills` each step adds to the batch of the corpus one of `drills`, by whose weights the loss
is taken; each of the two is a mean by itself. It is meant for weights that can count already:
`--start provider/embedded/model --folder MADE --state STATE --steps 800 --rate 0.3 --drills 48
--sizes 2`, then the same without `--sizes` from MADE for fewer steps at a smaller rate and another
seed, and last an `average` with the weights at the start, because names are copied worse after it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from provider.embedded import MODEL_PATH
from provider.embedded.making import drills
from provider.embedded.making.corpus import documents
from provider.embedded.making.network import Network
from provider.embedded.making.tokenizer import END, START, render, train_tokenizer

SEED = 20260
HELD_OUT_SEED = 1
HELD_OUT_BATCHES = 16
BUCKETS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024)  # row lengths, in tokens
TOKENS_A_STEP = 6144
BLOCK = 100  # steps whose documents have a seed of their own; a state is kept after each
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
    drill_loss: float = 0.0  # the same of the drills, whose tokens count by their weights


@dataclass(frozen=True)
class Batch:
    """Rows of tokens `(rows, length)` and what the loss of each weighs: 0 where it isn't counted."""

    tokens: Tensor
    weights: Tensor

    def total(self) -> float:
        """Return the sum of the weights that the loss counts; each is 1 in the ordinary corpus."""
        return float(self.weights[:, 1:].sum())

    def parts(self, count: int) -> list[Batch]:
        """Return the rows as batches of like size."""
        tokens, weights = self.tokens.chunk(count), self.weights.chunk(count)
        return [Batch(*part) for part in zip(tokens, weights, strict=True)]


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

    def drill_batches(self, seed: int, count: int) -> Iterator[Batch]:
        """Yield batches of `count` drills each, without end."""
        for rows in drills.batches(self._tokenizer, self._template, seed, count):
            tokens, weights = [row.tokens for row in rows], [row.weights for row in rows]
            yield Batch(torch.tensor(tokens), torch.tensor(weights))

    def numbers(self) -> Iterator[tuple[int, int]]:
        """Yield each number of one or two digits with its token; `7` and `07` are two."""
        for number in range(100):
            for text in sorted({f"{number}", f"{number:02d}"}):
                token = self._tokenizer.token_to_id(text)
                if token is not None:
                    yield number, token

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
            yield Batch(torch.tensor(padded), torch.tensor(masks, dtype=torch.float32))
            waiting[size] = []


def loss_of(network: Network, batch: Batch, total: float) -> Tensor:
    """Return the cross-entropy of the tokens by their weights: its sum in nats, over `total`."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(batch.tokens[:, :-1])
        wanted = batch.weights[:, 1:] > 0
        logits = network.logits(hidden[wanted])
    tokens, weights = batch.tokens[:, 1:][wanted], batch.weights[:, 1:][wanted]
    losses = functional.cross_entropy(logits.float(), tokens, reduction="none")
    return (losses * weights).sum() / total


def rate_at(step: int, steps: int) -> float:
    """Return a step's share of the peak learning rate: warm-up, plateau, long fall to zero."""
    return min(1.0, step / 50, (steps - step) / (steps * FALLING))


@torch.no_grad()
def put_in_sizes(network: Network, numbers: Iterable[tuple[int, int]], reach: float) -> None:
    """Add to the embeddings of numbers their size: -reach for 0, 0 for 50, almost reach for 99.

    A count's direction is a comparison of two numbers, but what was trained to say the next one
    has no order in its embeddings. The axis is the one along which all embeddings differ least, so
    that hardly anything else changes.
    """
    embeddings = network.embed.data
    axis = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False).Vh[-1]
    for number, token in numbers:
        embeddings[token] += reach * (number - 50) / 50 * axis


class Workers:
    """Threads that share a network's weights, each with gradients of its own until they are summed.

    Two threads of one operation each keep two shared cores busier than one operation on two.
    """

    def __init__(self, network: Network, threads: int):
        self._network = network
        self._replicas = [network, *(_replica(network) for _ in range(threads - 1))]
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, batch: Batch) -> float:
        """Add the gradients of a batch to those of the network's weights, and return the loss."""
        total, parts = batch.total(), batch.parts(len(self._replicas))
        losses = list(self._pool.map(_backward, self._replicas, parts, itertools.repeat(total)))
        for replica in self._replicas[1:]:
            _move_gradients(replica, self._network)
        return sum(losses)


def _replica(network: Network) -> Network:
    replica = Network(network.config)
    for weight, own in zip(network.parameters(), replica.parameters(), strict=True):
        own.data = weight.data
    return replica


def _move_gradients(source: Network, target: Network) -> None:
    for weight, other in zip(target.parameters(), source.parameters(), strict=True):
        if weight.grad is None or other.grad is None:
            raise RuntimeError("a weight has no gradient")
        weight.grad += other.grad
        other.grad = None


def _backward(network: Network, batch: Batch, total: float) -> float:
    loss = loss_of(network, batch, total)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


class Training:
    """A network, its optimizers and how far it has come."""

    def __init__(self, options: argparse.Namespace):
        torch.manual_seed(options.seed)
        folder, start = options.folder, options.start
        self.seed = options.seed
        self.encoder = Encoder(folder)
        self.network = Network(_config(folder))
        self.workers = Workers(self.network, options.threads)
        self.share = options.rate
        self.drills = options.drills
        if start is not None:
            self.network.load(load_file(start / "model.safetensors"))
        if options.sizes:
            put_in_sizes(self.network, self.encoder.numbers(), options.sizes)
        self.optimizers = _optimizers(self.network)
        self.progress = Progress()

    def keep(self, path: Path) -> None:
        """Write the state, replacing the old one at once."""
        aside = path.with_suffix(".tmp")
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save((self.network.state_dict(), optimizers, asdict(self.progress)), aside)
        aside.replace(path)

    def go_on_from(self, path: Path) -> None:
        """Take the state that `keep` wrote."""
        network, optimizers, progress = torch.load(path)
        self.network.load_state_dict(network)
        for optimizer, state in zip(self.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(state)
        self.progress = Progress(**progress)

    def block(self, steps: int) -> None:
        """Train for one block of a training of `steps` steps."""
        begin, losses, progress = time.perf_counter(), [], self.progress
        block = progress.step // BLOCK
        seed = self.seed + 1_000_003 * block
        for parts in itertools.islice(self._batches(seed), BLOCK):
            share = self.share * rate_at(progress.step + 1, steps)
            for optimizer, peak in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
                optimizer.param_groups[0]["lr"] = peak * share
            losses.append(self._step(parts))
            progress.step += 1
            progress.tokens += sum(batch.tokens.numel() for batch in parts)
        progress.seconds = round(progress.seconds + time.perf_counter() - begin, 1)
        means = [sum(some) / len(some) for some in zip(*losses, strict=True)]
        progress.loss, progress.drill_loss = means if self.drills else (*means, 0.0)

    def _batches(self, seed: int) -> Iterator[tuple[Batch, ...]]:
        """Return what each step learns from: a batch of the corpus, and with `drills` one of them."""
        ordinary = batches(self.encoder, seed)
        if not self.drills:
            return ((batch,) for batch in ordinary)
        return zip(ordinary, self.encoder.drill_batches(seed, self.drills), strict=True)

    def _step(self, parts: tuple[Batch, ...]) -> list[float]:
        """Take one step by the sum of the batches' losses, and return these."""
        losses = [self.workers.backward(batch) for batch in parts]
        if not all(map(math.isfinite, losses)):
            raise RuntimeError("the loss is no longer a number: a rate is too high")
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return losses


def train(training: Training, folder: Path, steps: int, state: Path) -> Progress:
    """Train up to a number of steps; the weights go to `folder`, the state to a file."""
    held_out = list(itertools.islice(batches(training.encoder, HELD_OUT_SEED), HELD_OUT_BATCHES))
    progress = training.progress
    with state.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
        while progress.step < steps:
            training.block(steps)
            if (progress.step // BLOCK) % 5 == 0 or progress.step >= steps:
                progress.held_out_loss = _evaluate(training.network, held_out)
            print(json.dumps(asdict(progress)), file=log, flush=True)
            save(training.network, folder)
            training.keep(state)
    return progress


def _optimizers(network: Network) -> tuple[torch.optim.Optimizer, ...]:
    return (
        torch.optim.Muon(
            network.matrices(), lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(network.others(), lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    )


def _config(folder: Path) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    return {**CONFIG, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": end}


@torch.no_grad()
def _evaluate(network: Network, held_out: list[Batch]) -> float:
    return sum(loss_of(network, batch, batch.total()).item() for batch in held_out) / len(held_out)


def save(network: Network, folder: Path) -> None:
    """Write the weights in 16 bits, replacing the old file at once, and the configuration."""
    aside = folder / "aside.tmp"
    save_file(network.weights(), aside, metadata={"format": "mlx"})
    aside.replace(folder / "model.safetensors")
    text = json.dumps(network.config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _prepare(folder: Path, start: Path | None, seed: int) -> None:
    """Put tokenizer files into the folder: new ones, or those of the model to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    if start is None:
        train_tokenizer(folder, seed)
        return
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            shutil.copy(start / name, folder)


def main() -> None:
    """Prepare the tokenizer, train, and write what the model card says of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=MODEL_PATH, help="where the model goes")
    parser.add_argument("--start", type=Path, help="the folder of a trained model to start from")
    parser.add_argument("--steps", type=int, default=3600, help=f"a multiple of {BLOCK}")
    parser.add_argument("--state", type=Path, default=Path(".build/train.pt"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--rate", type=float, default=1.0, help="share of the peak rates, less for trained weights"
    )
    parser.add_argument(
        "--drills", type=int, default=0, help="rows of counting drills that each step adds, e.g. 48"
    )
    parser.add_argument(
        "--sizes", type=float, default=0.0, help="reach of the sizes put into numbers' embeddings"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.state.parent.mkdir(parents=True, exist_ok=True)
    if not options.state.exists():
        _prepare(options.folder, options.start, options.seed)
    training = Training(options)
    if options.state.exists():
        training.go_on_from(options.state)
    progress = train(training, options.folder, options.steps, options.state)
    record = json.dumps({"seed": options.seed, **asdict(progress)}, indent=2)
    (options.folder / "training.json").write_text(record + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
