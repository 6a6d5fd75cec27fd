"""A small U-Net conditioned on the timestep and, optionally, a class label or text: fast on two CPU cores.

Where the work goes: 2x2 pixels are first packed into channels (pixel unshuffle), so that the largest maps have a
quarter of the positions. Nearly all multiplications are then 3x3 convolutions with many channels, which CPUs do well.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lessons.checks import check_shape
from diffusion_lessons.condition import AnyCondition, Condition
from diffusion_lessons.models.text import CrossAttention, TextEncoder


def time_embedding(t: Tensor, width: int, T: int) -> Tensor:
    """The sinusoidal embedding of the timestep, from high frequencies to low.

    emb[b, k] = sin(w_k 1000 t_b / T), then cos(...);  w_k = 10000^(-k / (width/2))  (Vaswani et al. 2017, section 3.5)

    Over the whole schedule the fastest completes 159 periods, 1000 / (2 pi); the slowest only a small part of one,
    0.023 at a width of 48, so that its sine is almost a straight line and tells roughly how large t is.
    t: (B,) in 0..T  ->  (B, width) float32 in [-1, 1]. The factor 1000 / T makes it the same for every T.
    """
    k = torch.arange(width // 2, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(10000) * k / (width // 2))           # (width/2,)
    angles = (1000 / T * t.float())[:, None] * frequencies[None, :]        # (B, width/2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)                  # (B, width)


class ResBlock(nn.Module):
    """Two convolutions and a shortcut; the embedding of time and condition scales and shifts the channels in between.

    x: (B, C_in, H, W), emb: (B, E)  ->  (B, C_out, H, W)
    """

    def __init__(self, c_in: int, c_out: int, emb_width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(emb_width, 2 * c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)    # every block starts out as its shortcut

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale_shift(emb)[:, :, None, None].chunk(2, dim=1)    # (B, C_out, 1, 1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.shortcut(x) + self.conv2(h)


class Attention(nn.Module):
    """Self-attention: each position attends to all positions.  x: (B, C, H, W) -> (B, C, H, W), N = H W positions"""

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm = nn.GroupNorm(8, channels)
        self.to_qkv, self.to_out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)                   # (B, heads, N, head_width) each
        mixed = F.scaled_dot_product_attention(q, k, v)             # (B, heads, N, head_width)
        return x + self.to_out(mixed.transpose(-1, -2).reshape(B, C, H, W))


class DownBlock(nn.Module):
    """One level on the way down: halve the map, residual blocks (each leaves a skip connection), cross-attention.

    c: channels of the level;  above: channels of the level above it, or None at the top, where the map is not halved
    h: (B, above, 2H, 2W)  ->  (B, c, H, W), and `blocks` more of them in skips
    """

    def __init__(self, c: int, above: int | None, emb_width: int, blocks: int, text_width: int | None) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(above, c, 3, stride=2, padding=1) if above else nn.Identity()
        self.resnets = nn.ModuleList(ResBlock(c, c, emb_width) for _ in range(blocks))
        self.cross_attention = CrossAttention(c, text_width) if text_width else None

    def forward(self, h: Tensor, emb: Tensor, condition: Condition | None, skips: list[Tensor]) -> Tensor:
        h = self.downsample(h)
        for resnet in self.resnets:
            h = resnet(h, emb)
            skips.append(h)
        return h if self.cross_attention is None else self.cross_attention(h, condition)


class UpBlock(nn.Module):
    """One level on the way up: residual blocks (each takes a skip connection), cross-attention, double the map.

    h: (B, c, H, W)  ->  (B, above, 2H, 2W), or (B, c, H, W) at the top; the settings are those of DownBlock
    """

    def __init__(self, c: int, above: int | None, emb_width: int, blocks: int, text_width: int | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(2 * c, c, emb_width) for _ in range(blocks))
        self.cross_attention = CrossAttention(c, text_width) if text_width else None
        self.upsample = nn.Sequential(nn.Conv2d(c, above, 1), nn.Upsample(scale_factor=2)) if above else nn.Identity()

    def forward(self, h: Tensor, emb: Tensor, condition: Condition | None, skips: list[Tensor]) -> Tensor:
        for resnet in self.resnets:
            h = resnet(torch.cat([h, skips.pop()], 1), emb)
        return self.upsample(h if self.cross_attention is None else self.cross_attention(h, condition))


class UNet(nn.Module):
    """Down to a small map and back up, with skip connections between maps of the same size.

    x_t: (B, C, H, W), H and W divisible by patch * 2^(levels - 1);  t: (B,) in 0..T;
    condition: None for the null condition, or for a network built with
       classes: (B,) labels in 0..classes-1, or the Condition that `encode_labels` makes of them
       text:    (B, L) tokens, or the Condition that `encode_text` makes of them  ->  (B, C, H, W)
    Raises ValueError for other shapes, and for a condition that this network does not take.

    channels: the width of each level;  blocks: residual blocks per level
    attention: self-attention at the lowest level
    text: the settings of a TextEncoder. The text enters twice: pooled, added to the time embedding, and token by token
    through cross-attention, at all levels but the first.
    time_conditioned=False builds the same network without the time, for the lesson that asks whether it needs it.
    """

    null_label: Tensor

    def __init__(self, in_channels: int = 1, channels: Sequence[int] = (64, 128), blocks: int = 2,
                 classes: int | None = None, patch: int = 2, T: int = 1000, time_conditioned: bool = True,
                 text: dict[str, int] | None = None, attention: bool = True) -> None:
        super().__init__()
        if classes and text:
            raise ValueError("a network is conditioned on labels (classes) or on sentences (text), not on both")
        self.config = dict(in_channels=in_channels, channels=list(channels), blocks=blocks, classes=classes,
                           patch=patch, T=T, time_conditioned=time_conditioned, attention=attention,
                           **({"text": text} if text else {}))
        self.patch, self.T, self.classes, self.time_conditioned = patch, T, classes, time_conditioned
        self.stride = patch * 2 ** (len(channels) - 1)    # pixels to a position of the smallest map
        self.width, emb_width = channels[0], 4 * channels[0]
        self.time_mlp = nn.Sequential(nn.Linear(self.width, emb_width), nn.SiLU(), nn.Linear(emb_width, emb_width))
        self.class_embedding = nn.Embedding(classes + 1, emb_width) if classes else None    # the last row: no label
        self.register_buffer("null_label", torch.tensor(classes or 0), persistent=False)
        self.text_encoder = TextEncoder(**text) if text else None
        text_width = self.text_encoder.width if self.text_encoder else None
        self.text_proj = nn.Linear(text_width, emb_width) if text_width else None

        levels: list[dict[str, Any]] = [
            dict(c=c, above=channels[k - 1] if k > 0 else None, emb_width=emb_width, blocks=blocks,
                 text_width=text_width if k > 0 else None) for k, c in enumerate(channels)]
        lowest, packed = channels[-1], in_channels * patch**2
        self.conv_in = nn.Conv2d(packed, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(DownBlock(**level) for level in levels)
        attend = Attention(lowest) if attention else nn.Identity()
        self.mid_block = nn.ModuleList(
            [ResBlock(lowest, lowest, emb_width), attend, ResBlock(lowest, lowest, emb_width)])
        self.up_blocks = nn.ModuleList(UpBlock(**level) for level in reversed(levels))
        last = nn.Conv2d(channels[0], packed, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.conv_out = nn.Sequential(nn.GroupNorm(8, channels[0]), nn.SiLU(), last)

    @property
    def null_y(self) -> Tensor | None:
        """The label () or the tokens (L,) that stand for "no condition"; None for an unconditional network."""
        if self.text_encoder is not None:
            return self.text_encoder.null_tokens
        return self.null_label if self.classes else None

    def encode_labels(self, y: Tensor) -> Condition:
        """(B,) labels  ->  their Condition: pooled (B, E)"""
        if self.class_embedding is None:
            raise ValueError("this network was built without labels: leave them out, or build it with classes=...")
        return Condition(pooled=self.class_embedding(y))

    def encode_text(self, tokens: Tensor) -> Condition:
        """(B, L) tokens  ->  their Condition: pooled (B, D), hidden_states (B, L, D), mask (B, L)"""
        if self.text_encoder is None:
            raise ValueError("this network was built without a text encoder: build it with text=...")
        return self.text_encoder(tokens)

    def null_condition(self, count: int) -> Condition:
        """The learned condition "no label" or "no text", for `count` pictures."""
        if self.null_y is None:
            raise ValueError("this network is unconditional: leave the condition out")
        encode = self.encode_labels if self.text_encoder is None else self.encode_text
        return encode(self.null_y[None]).expand(count)

    def encode(self, condition: AnyCondition, count: int) -> Condition | None:
        """Whatever `forward` accepts as the Condition of `count` pictures; None if the network is unconditional."""
        if condition is None:
            return None if self.null_y is None else self.null_condition(count)
        if isinstance(condition, Tensor):
            condition = self.encode_labels(condition) if self.text_encoder is None else self.encode_text(condition)
        if len(condition) != count:
            raise ValueError(f"{count} pictures but {len(condition)} conditions: give one row to each picture")
        return condition

    def check_condition(self, y: Tensor) -> None:
        """Raise ValueError unless these are labels (N,) or tokens (N, L) that this network knows.

        For the place where y enters: it reads the values, which would make each step on a GPU wait.
        """
        text, classes = self.text_encoder, self.classes
        low, high = (int(y.min()), int(y.max())) if y.numel() else (0, 0)
        if text is not None and y.ndim == 1:
            raise ValueError(f"this network is conditioned on sentences: give tokens (N, {text.length}), "
                             "not labels (N,)")
        if text is not None:
            size = len(text.token_embedding.weight)
            if y.shape[1:] != (text.length,) or not 0 <= low <= high < size:
                raise ValueError(f"tokens must be (N, {text.length}) and below {size} for this network; these are "
                                 f"{tuple(y.shape)}, up to {high}: from another tokenizer?")
        elif y.ndim == 2 and y.shape[1] == 1:
            raise ValueError(f"labels must be (N,), not {tuple(y.shape)}: call y[:, 0]")
        elif y.ndim == 2:
            raise ValueError(f"y is {tuple(y.shape)}: these are tokens of sentences, which this network cannot read: "
                             "build it with text=... (or if each row is one-hot, call y.argmax(1) for labels)")
        elif y.ndim != 1:
            raise ValueError(f"labels must be (N,), or tokens (N, L), not {tuple(y.shape)}")
        elif y.numel() and not (classes and 0 <= low <= high < classes):
            raise ValueError(f"labels must lie in 0..classes-1 of the network, which has classes={classes}; these lie "
                             f"in {low}..{high}")

    def embed(self, t: Tensor, condition: Condition | None) -> Tensor:
        """The time and the pooled condition as one vector.  t: (B,) -> (B, E)"""
        emb = self.time_mlp(time_embedding(t, self.width, self.T) * self.time_conditioned)
        if condition is not None and condition.pooled is not None:
            emb = emb + (condition.pooled if self.text_proj is None else self.text_proj(condition.pooled))
        return F.silu(emb)

    def forward(self, x_t: Tensor, t: Tensor, condition: AnyCondition = None) -> Tensor:
        check_shape(x_t.shape, self)
        if any(side % self.stride for side in x_t.shape[-2:]):
            raise ValueError(f"height and width must be divisible by {self.stride}, got {tuple(x_t.shape)}: pad it")
        encoded = self.encode(condition, len(x_t))
        emb = self.embed(t, encoded)                                # (B, E)
        h = self.conv_in(F.pixel_unshuffle(x_t, self.patch))        # (B, C p^2, H/p, W/p) -> (B, c, H/p, W/p)
        skips: list[Tensor] = []
        for down in self.down_blocks:
            h = down(h, emb, encoded, skips)                        # below the first: (B, c, H, W) -> (B, c', H/2, W/2)
        before, attention, after = self.mid_block
        h = after(attention(before(h, emb)), emb)
        for up in self.up_blocks:
            h = up(h, emb, encoded, skips)                          # until the first: (B, c', H/2, W/2) -> (B, c, H, W)
        return F.pixel_shuffle(self.conv_out(h), self.patch)        # (B, C, H, W)
