"""The layers that the U-Net and the VAE share. Parameter names are those of the published checkpoints."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the timestep, if there is one, is added to the channels in between.

    x: (B, c_in, H, W), emb: (B, time_width) or None  ->  (B, c_out, H, W)
    """

    def __init__(self, c_in: int, c_out: int, groups: int, eps: float, time_width: int | None = None) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, c_in, eps), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, c_out, eps), nn.Conv2d(c_out, c_out, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, c_out)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if emb is not None:
            h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]     # (B, c_out, 1, 1)
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Each position queries all positions of the context; without one, of x itself (self-attention).

    softmax(q k^T / sqrt(d)) v in each head of width d                    (Vaswani et al. 2017, eq. 1)

    x: (B, N, width), context: (B, L, context_width) or None  ->  (B, N, width)
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=qkv_bias)
        self.to_k = nn.Linear(context_width or width, width, bias=qkv_bias)
        self.to_v = nn.Linear(context_width or width, width, bias=qkv_bias)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2)     # (B, heads, N or L, d)
                   for each in (self.to_q(x), self.to_k(context), self.to_v(context)))
        mixed = F.scaled_dot_product_attention(q, k, v)                     # (B, heads, N, d)
        return self.to_out(mixed.transpose(1, 2).flatten(2))                # (B, N, width)


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2.

    The VAE pads at the right and at the bottom alone; the U-Net pads all around. Both were trained so.
    """

    def __init__(self, channels: int, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """Twice the height and width: each pixel becomes 2x2, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
