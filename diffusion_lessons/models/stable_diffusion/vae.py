"""The autoencoder of Stable Diffusion: pictures to a small map of latents and back.

(Rombach et al. 2022, section 3.1.) Module and parameter names are those of `diffusers.AutoencoderKL`, so published
weights load by load_state_dict.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .config import REQUIRED, read_config
from .layers import Attention, Downsample, ResnetBlock, Upsample

EPS = 1e-6    # of every GroupNorm here; the U-Net's residual blocks have 1e-5
SIZES = dict(in_channels=3, out_channels=3, block_out_channels=REQUIRED, layers_per_block=1, latent_channels=4,
             norm_num_groups=32, scaling_factor=0.18215, sample_size=512, down_block_types=None, up_block_types=None)
FIXED = dict(act_fn=("silu",), mid_block_add_attention=(True,), use_quant_conv=(True,), use_post_quant_conv=(True,),
             force_upcast=(True, False), shift_factor=(None,), latents_mean=(None,), latents_std=(None,))


class Gaussian(NamedTuple):
    """What the encoder says of a picture: a mean and a log variance for every latent.  Both (B, C, h, w)"""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std noise: one of the latents that stand for the picture.  noise: like mean"""
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:
        """KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2 of every latent.  (B, C, h, w)"""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)


class SpatialAttention(Attention):
    """Self-attention with one head among all positions of a map.  (B, C, H, W) -> the same"""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, heads=1, qkv_bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, EPS)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        positions = self.group_norm(x).flatten(2).transpose(1, 2)                 # (B, H W, C)
        return x + super().forward(positions).transpose(1, 2).reshape(x.shape)


class MidBlock(nn.Module):
    """At the smallest map: residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Level(nn.Module):
    """The residual blocks of one size, and the step to the next size (none at the last)."""

    def __init__(self, c_in: int, c_out: int, layers: int, groups: int, downsample: bool = False,
                 upsample: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(c_in if i == 0 else c_out, c_out, groups, EPS) for i in range(layers))
        self.downsamplers = nn.ModuleList([Downsample(c_out, asymmetric=True)] if downsample else [])
        self.upsamplers = nn.ModuleList([Upsample(c_out)] if upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """(B, 3, H, W) pictures -> (B, 2 C, H/f, W/f): mean and log variance."""

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int], layers: int, groups: int) -> None:
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(widths[max(0, i - 1)], width, layers, groups, downsample=i < last) for i, width in enumerate(widths))
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """(B, C, h, w) latents -> (B, 3, f h, f w) pictures. One residual block a level more than the encoder."""

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int], layers: int, groups: int) -> None:
        super().__init__()
        widths, last = list(reversed(widths)), len(widths) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(widths[max(0, i - 1)], width, layers + 1, groups, upsample=i < last)
            for i, width in enumerate(widths))
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """Encoder and decoder. `encode` and `decode` speak raw latents; the diffusion model sees them times scaling_factor.

    factor: pixels of a picture to a latent, in each direction: 8 in Stable Diffusion, 4 in the miniature
    Raises ValueError for a config that this code does not implement.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        size = read_config("VAE", config, SIZES, FIXED)
        for name, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            if set(size[name] or [kind]) != {kind}:
                raise ValueError(f"the config of this VAE says {name}={size[name]}; this code knows only {kind}")
        self.config, self.scaling_factor = config, size["scaling_factor"]
        widths, channels = list(size["block_out_channels"]), size["latent_channels"]
        self.factor, self.latent_channels = 2 ** (len(widths) - 1), channels
        shape = widths, size["layers_per_block"], size["norm_num_groups"]
        self.encoder = Encoder(size["in_channels"], 2 * channels, *shape)
        self.decoder = Decoder(channels, size["out_channels"], *shape)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, x: Tensor) -> Gaussian:
        """(B, 3, H, W) in [-1, 1], sides divisible by the factor -> a Gaussian over (B, C, H/f, W/f) latents."""
        if any(side % self.factor for side in x.shape[-2:]):
            raise ValueError(f"height and width must be divisible by {self.factor}, got {tuple(x.shape[-2:])}")
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(-30, 20))

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w) latents -> (B, 3, f h, f w), about in [-1, 1]."""
        return self.decoder(self.post_quant_conv(z))


def vae_loss(vae: VAE, x: Tensor, noise: Tensor, kl_weight: float = 1e-4) -> Tensor:
    """Mean squared error of the reconstruction, and a little KL so that the latents stay near N(0, 1).

    mean (x_hat - x)^2 + kl_weight mean KL                               (Kingma & Welling 2014, eq. 10)

    A weight of 1 would be the textbook's VAE, and blur. Here the KL only keeps the latents in one place: at
    1e-4 the noise it puts into them costs about 5e-5 of squared error in [-1, 1], far below what one sees.
    x: (B, 3, H, W) in [-1, 1];  noise: (B, C, H/f, W/f) standard Gaussian  ->  a scalar
    """
    gaussian = vae.encode(x)
    x_hat = vae.decode(gaussian.sample(noise))
    return F.mse_loss(x_hat, x) + kl_weight * gaussian.kl().mean()
