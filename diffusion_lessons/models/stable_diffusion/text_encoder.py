"""CLIP's text encoder: a causal transformer whose last hidden states condition the U-Net.

(Radford et al. 2021, section 2.4; Rombach et al. 2022, section 3.3.)
Module and parameter names are those of the published files (transformers' CLIPTextModel).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import REQUIRED, read_config

SIZES = dict(vocab_size=REQUIRED, hidden_size=REQUIRED, intermediate_size=REQUIRED, num_hidden_layers=REQUIRED,
             num_attention_heads=REQUIRED, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5,
             eos_token_id=2, bos_token_id=0, pad_token_id=1, projection_dim=512, architectures=None, model_type=None,
             initializer_factor=1.0, initializer_range=0.02, torch_dtype=None, dtype=None, transformers_version=None)
FIXED = dict(attention_dropout=(0, 0.0), dropout=(0, 0.0))


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x): what OpenAI's CLIP has in place of GELU; OpenCLIP's models have the exact one."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class TextFeatures(NamedTuple):
    """hidden_states: (B, L, D), one vector a token, for the U-Net;  pooled: (B, D), that of the first EOS, for CLIP"""

    hidden_states: Tensor
    pooled: Tensor


class CausalAttention(nn.Module):
    """Each token queries itself and those before it.  (B, L, D) -> (B, L, D)"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)     # (B, heads, L, d)
                   for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with an activation in between, position by position."""

    def __init__(self, width: int, inner: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(width, inner), nn.Linear(inner, width), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """Causal self-attention, then the MLP, each around a shortcut and behind a LayerNorm."""

    def __init__(self, width: int, heads: int, inner: int, activation: Callable[[Tensor], Tensor], eps: float) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = nn.LayerNorm(width, eps), CausalAttention(width, heads)
        self.layer_norm2, self.mlp = nn.LayerNorm(width, eps), MLP(width, inner, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextEncoder(nn.Module):
    """Tokens to features.

    Raises ValueError for a config that this code does not implement.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        size = read_config("text encoder", config, SIZES, FIXED)
        self.config, self.width, self.length = config, size["hidden_size"], size["max_position_embeddings"]
        if size["hidden_act"] not in ACTIVATIONS:
            raise ValueError(f"unknown hidden_act {size['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}")
        # Configs from before 2023 say 2 and mean the last token of the vocabulary.
        self.eos = size["vocab_size"] - 1 if size["eos_token_id"] == 2 else size["eos_token_id"]
        eps = size["layer_norm_eps"]
        layers = [Layer(self.width, size["num_attention_heads"], size["intermediate_size"],
                        ACTIVATIONS[size["hidden_act"]], eps) for _ in range(size["num_hidden_layers"])]
        self.text_model = nn.ModuleDict({
            "embeddings": nn.ModuleDict({
                "token_embedding": nn.Embedding(size["vocab_size"], self.width),
                "position_embedding": nn.Embedding(self.length, self.width)}),
            "encoder": nn.ModuleDict({"layers": nn.ModuleList(layers)}),
            "final_layer_norm": nn.LayerNorm(self.width, eps),
        })

    def forward(self, tokens: Tensor) -> TextFeatures:
        """(B, L) tokens, L up to max_position_embeddings -> TextFeatures"""
        if tokens.shape[-1] > self.length:
            raise ValueError(f"rows of {tokens.shape[-1]} tokens, but this text encoder reads {self.length}")
        model: Any = self.text_model
        embeddings = model["embeddings"]
        x = embeddings["token_embedding"](tokens) + embeddings["position_embedding"].weight[:tokens.shape[-1]]
        for layer in model["encoder"]["layers"]:
            x = layer(x)
        x = model["final_layer_norm"](x)                                          # (B, L, D)
        first_eos = (tokens == self.eos).int().argmax(-1)                         # (B,)
        return TextFeatures(x, x[torch.arange(len(x), device=x.device), first_eos])
