"""The embedded model's network in PyTorch, for training: Qwen3 as mlx-lm computes it.

Training runs in PyTorch because on a CPU it is four times as fast as mlx at this; what is served
runs in mlx. The names of the weights are those of the file that mlx-lm loads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Network"]

PLAIN_UP_TO = 384  # tokens in a row


class Network(nn.Module):
    """Maps tokens `(rows, length)` to hidden states; `embed` is also the output layer."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        width = config["hidden_size"]
        self.embed = nn.Parameter(torch.randn(config["vocab_size"], width) * 0.02)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the normed hidden states `(rows, length, hidden)`."""
        cos, sin = self._rotation(tokens.shape[1])
        hidden = self.embed[tokens]
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        return _rms(hidden, self.norm, self.config["rms_norm_eps"])

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits `(…, vocabulary)`."""
        return hidden @ self.embed.T

    def _rotation(self, length: int) -> tuple[Tensor, Tensor]:
        half = self.config["head_dim"] // 2
        rates = self.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
        return angles.cos(), angles.sin()

    def matrices(self) -> list[nn.Parameter]:
        """Return the weights that Muon updates: the layers' matrices."""
        return [weight for weight in self.layers.parameters() if weight.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        """Return the weights that AdamW updates: the embedding and the norms."""
        norms = [weight for weight in self.layers.parameters() if weight.ndim == 1]
        return [self.embed, self.norm, *norms]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights in 16 bits under the names that mlx-lm loads."""
        return {name: weight.detach().to(torch.bfloat16) for name, weight in self._named().items()}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take weights that `weights` returned."""
        named = self._named()
        if named.keys() != weights.keys():
            raise ValueError("the weights are those of another network")
        for name, weight in named.items():
            weight.data.copy_(weights[name])

    def _named(self) -> dict[str, nn.Parameter]:
        named = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norm}
        for index, layer in enumerate(self.layers):
            for name, weight in layer.named_parameters():
                named[f"model.layers.{index}.{name.replace('__', '.')}.weight"] = weight
        return named


class _Layer(nn.Module):
    """One transformer block; a double underscore in a weight's name stands for a dot in the file's."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.head = config["head_dim"]
        self.eps = config["rms_norm_eps"]
        layers = 2 * config["num_hidden_layers"]
        self.self_attn__q_proj = _matrix(self.heads * self.head, width)
        self.self_attn__k_proj = _matrix(self.kv_heads * self.head, width)
        self.self_attn__v_proj = _matrix(self.kv_heads * self.head, width)
        self.self_attn__o_proj = _matrix(width, self.heads * self.head, layers**-0.5)
        self.self_attn__q_norm = nn.Parameter(torch.ones(self.head))
        self.self_attn__k_norm = nn.Parameter(torch.ones(self.head))
        self.mlp__gate_proj = _matrix(inner, width)
        self.mlp__up_proj = _matrix(inner, width)
        self.mlp__down_proj = _matrix(width, inner, layers**-0.5)
        self.input_layernorm = nn.Parameter(torch.ones(width))
        self.post_attention_layernorm = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self._attend(_rms(hidden, self.input_layernorm, self.eps), cos, sin)
        inner = _rms(hidden, self.post_attention_layernorm, self.eps)
        gate = functional.silu(inner @ self.mlp__gate_proj.T)
        out: Tensor = hidden + (gate * (inner @ self.mlp__up_proj.T)) @ self.mlp__down_proj.T
        return out

    def _attend(self, inner: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = inner.shape
        q = (inner @ self.self_attn__q_proj.T).view(rows, length, self.heads, self.head)
        k = (inner @ self.self_attn__k_proj.T).view(rows, length, self.kv_heads, self.head)
        v = (inner @ self.self_attn__v_proj.T).view(rows, length, self.kv_heads, self.head)
        q = _rotate(_rms(q, self.self_attn__q_norm, self.eps).transpose(1, 2), cos, sin)
        k = _rotate(_rms(k, self.self_attn__k_norm, self.eps).transpose(1, 2), cos, sin)
        v = v.transpose(1, 2)
        repeat = self.heads // self.kv_heads
        mixed = _attention(
            q.to(v.dtype),
            k.to(v.dtype).repeat_interleave(repeat, 1),
            v.repeat_interleave(repeat, 1),
        )
        return mixed.transpose(1, 2).reshape(rows, length, -1) @ self.self_attn__o_proj.T


def _matrix(rows: int, columns: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * columns**-0.5 * scale)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention, written out for short rows, for which that is faster on a CPU."""
    length, width = q.shape[-2:]
    if length > PLAIN_UP_TO:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    ahead = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    return torch.softmax((q @ k.transpose(-1, -2)) * width**-0.5 + ahead, -1) @ v


def _rms(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    hidden = hidden.float()
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + half), as mlx's rope with `traditional=False`."""
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
