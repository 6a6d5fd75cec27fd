"""The U-Net of Stable Diffusion: noisy latents, a timestep and text in, the noise (or v) out.

(Rombach et al. 2022, section 3.3.) Module and parameter names are those of `diffusers.UNet2DConditionModel`, so
published weights load by load_state_dict.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lessons.forward import add_noise, velocity

from .config import REQUIRED, read_config
from .layers import Attention, Downsample, ResnetBlock, Upsample
from .scheduler import Scheduler

SIZES = dict(in_channels=4, out_channels=4, block_out_channels=REQUIRED, layers_per_block=2, norm_num_groups=32,
             down_block_types=REQUIRED, up_block_types=REQUIRED, cross_attention_dim=REQUIRED,
             attention_head_dim=8, use_linear_projection=False, sample_size=None)
FIXED = dict(
    act_fn=("silu",), norm_eps=(1e-5,), flip_sin_to_cos=(True,), freq_shift=(0,), downsample_padding=(1,),
    mid_block_scale_factor=(1,), mid_block_type=("UNetMidBlock2DCrossAttn",), resnet_time_scale_shift=("default",),
    transformer_layers_per_block=(1,), time_embedding_type=("positional",), conv_in_kernel=(3,), conv_out_kernel=(3,),
    attention_type=("default",), resnet_out_scale_factor=(1.0,), dropout=(0.0,), num_attention_heads=(None,),
    addition_embed_type_num_heads=(64,),       # of an embedding that is off
    upcast_attention=(True, False, None),      # scaled_dot_product_attention sums in float32 in any case
)  # fmt: skip


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of the time, from fast to slow.

    emb[b, k] = cos(w_k t_b), then sin(...);  w_k = 10000^(-k / (width/2))       (Vaswani et al. 2017, section 3.5)

    t: (B,), counted 0..T-1 as these networks do  ->  (B, width) float32
    """
    k = torch.arange(width // 2, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * k / (width // 2))     # (B, width/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimestepEmbedding(nn.Module):
    """An MLP on top of the sinusoids.  (B, width) -> (B, time_width)"""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, time_width), nn.Linear(time_width, time_width)

    def forward(self, emb: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(emb)))


class GEGLU(nn.Module):
    """a gelu(b), where a and b are two linear maps of x                         (Shazeer 2020, eq. 6)"""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.proj(x).chunk(2, dim=-1)
        return a * F.gelu(b)


class FeedForward(nn.Module):
    """GEGLU and a linear layer, position by position. (Between them the published code has a dropout of 0.)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Positions query each other (self-attention), then the text (cross-attention), then each thinks alone."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads, text_width)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """A transformer block over the positions of a map, with a projection before and after, around a shortcut.

    x: (B, C, H, W), text: (B, L, text_width)  ->  (B, C, H, W)
    """

    def __init__(self, channels: int, heads: int, text_width: int, groups: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear      # Stable Diffusion 1 projects by 1x1 convolutions, 2 by linear layers: the same thing
        project = (lambda: nn.Linear(channels, channels)) if linear else (lambda: nn.Conv2d(channels, channels, 1))
        self.norm, self.proj_in = nn.GroupNorm(groups, channels, 1e-6), project()
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, text_width)])
        self.proj_out = project()

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        h = self.norm(x)
        h = self.proj_in(flat(h)) if self.linear else flat(self.proj_in(h))          # (B, H W, C)
        h = self.transformer_blocks[0](h, text)
        return x + (unflat(self.proj_out(h), H, W) if self.linear else self.proj_out(unflat(h, H, W)))


def flat(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C): the positions in a row."""
    return x.flatten(2).transpose(1, 2)


def unflat(x: Tensor, H: int, W: int) -> Tensor:
    """(B, H W, C) -> (B, C, H, W)"""
    return x.transpose(1, 2).unflatten(2, (H, W))


class Level(nn.Module):
    """The residual blocks of one size, each followed by a Transformer where this level has cross-attention.

    c_ins: the channels that come into each residual block
    """

    def __init__(self, c_ins: Sequence[int], c_out: int, resnet: Callable[[int, int], ResnetBlock],
                 transformer: Callable[[int], Transformer] | None = None, downsample: bool = False,
                 upsample: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnet(c_in, c_out) for c_in in c_ins)
        self.attentions = nn.ModuleList(transformer(c_out) for _ in c_ins) if transformer else [None] * len(c_ins)
        self.downsamplers = nn.ModuleList([Downsample(c_out)] if downsample else [])
        self.upsamplers = nn.ModuleList([Upsample(c_out)] if upsample else [])


class DownLevel(Level):
    """On the way down every map is kept in `skips`."""

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, skips: list[Tensor]) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions):
            x = resnet(x, emb)
            x = attention(x, text) if attention else x
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class UpLevel(Level):
    """On the way up each residual block gets the map of its size from the way down, the last kept first."""

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, skips: list[Tensor]) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions):
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            x = attention(x, text) if attention else x
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class MidBlock(nn.Module):
    """At the smallest map: residual block, transformer, residual block."""

    def __init__(self, channels: int, resnet: Callable[[int, int], ResnetBlock],
                 transformer: Callable[[int], Transformer]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnet(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([transformer(channels)])

    def forward(self, x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, emb), text), emb)


class UNet(nn.Module):
    """Down to a small map and back up, with skip connections, conditioned on the timestep and on text.

    x: (B, C, H, W), sides divisible by 2^(levels - 1);  t: (B,) in 0..T-1;  text: (B, L, cross_attention_dim), the
    text encoder's hidden states  ->  (B, C, H, W)

    Raises ValueError for a config that this code does not implement, and for sides that do not divide.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        size = read_config("U-Net", config, SIZES, FIXED)
        self.config, widths, layers = config, list(size["block_out_channels"]), size["layers_per_block"]
        self.in_channels, self.fold = size["in_channels"], 2 ** (len(widths) - 1)
        groups, time_width, last = size["norm_num_groups"], 4 * widths[0], len(widths) - 1
        heads = heads_of_levels(size["attention_head_dim"], widths)

        def resnet(c_in: int, c_out: int) -> ResnetBlock:
            return ResnetBlock(c_in, c_out, groups, 1e-5, time_width)

        def transformer(level: int) -> Callable[[int], Transformer]:
            return lambda channels: Transformer(channels, heads[level], size["cross_attention_dim"], groups,
                                                size["use_linear_projection"])

        attends = levels_with_attention(size["down_block_types"], size["up_block_types"], len(widths))
        self.conv_in = nn.Conv2d(self.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time_width)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        c, skips = widths[0], [widths[0]]
        for i, width in enumerate(widths):
            self.down_blocks.append(DownLevel([c] + [width] * (layers - 1), width, resnet,
                                              transformer(i) if attends[i] else None, downsample=i < last))
            c, skips = width, skips + [width] * (layers + (i < last))
        self.mid_block = MidBlock(c, resnet, transformer(last))
        for i, width in reversed(list(enumerate(widths))):
            c_ins = [(c if k == 0 else width) + skips.pop() for k in range(layers + 1)]
            self.up_blocks.append(UpLevel(c_ins, width, resnet, transformer(i) if attends[i] else None,
                                          upsample=i > 0))
            c = width
        self.conv_norm_out = nn.GroupNorm(groups, c, 1e-5)
        self.conv_out = nn.Conv2d(c, size["out_channels"], 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        if any(side % self.fold for side in x.shape[-2:]):
            raise ValueError(f"height and width of the latents must be divisible by {self.fold}, got {tuple(x.shape)}")
        width = self.conv_in.out_channels
        emb = self.time_embedding(timestep_embedding(t, width).to(x.dtype))          # (B, time_width)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, emb, text, skips)
        x = self.mid_block(x, emb, text)
        for level in self.up_blocks:
            x = level(x, emb, text, skips)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def heads_of_levels(attention_head_dim: int | Sequence[int], widths: Sequence[int]) -> list[int]:
    """How many heads each level has. The published name is a slip: it is the number of heads, not their width."""
    heads = [attention_head_dim] * len(widths) if isinstance(attention_head_dim, int) else list(attention_head_dim)
    if len(heads) != len(widths) or any(width % h for width, h in zip(widths, heads)):
        raise ValueError(f"attention_head_dim={attention_head_dim} does not fit block_out_channels={widths}: it is the "
                         "number of heads of each level, and must divide its channels")
    return heads


def levels_with_attention(down_types: Sequence[str], up_types: Sequence[str], count: int) -> list[bool]:
    """Which levels have transformers, from the published names of their blocks.  -> a list of `count` booleans"""
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}
    unknown = [name for name in (*down_types, *up_types) if name not in known]
    if unknown:
        raise ValueError(f"unknown blocks in the config of this U-Net: {', '.join(unknown)}; known are "
                         f"{', '.join(known)}")
    down, up = ([known[name] for name in names] for names in (down_types, reversed(up_types)))
    if down != up or len(down) != count:
        raise ValueError(f"down_block_types {list(down_types)} and up_block_types {list(up_types)} must mirror each "
                         f"other, with one of each for all {count} levels")
    return down


def diffusion_loss(unet: nn.Module, scheduler: Scheduler, latents: Tensor, text: Tensor, t: Tensor,
                   eps: Tensor) -> Tensor:
    """The mean squared error of what the network predicts of noised latents: eps, or v.

    E || eps - eps_hat(x_t, t, text) ||^2                                       (Rombach et al. 2022, eq. 3)

    latents, eps: (B, C, h, w), the latents of unit variance;  text: (B, L, D);  t: (B,) in 1..T  ->  a scalar
    """
    schedule = scheduler.schedule
    output = unet(add_noise(latents, t, eps, schedule), t - 1, text)
    return F.mse_loss(output, eps if scheduler.prediction_type == "eps" else velocity(latents, eps, t, schedule))
