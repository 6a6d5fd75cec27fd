"""A small U-Net that is told the time, and maybe a label or a sentence: fast on two CPU cores, short enough to read.

Where the work goes: the picture is folded first, 2x2 pixels into 4 channels, so that the widest maps have a quarter
of the places; nearly all multiplications are then 3x3 convolutions with many channels, which CPUs do well.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_lessons.checks import check_shape
from diffusion_lessons.models.text import CrossAttention, Reading, TextEncoder


def time_embedding(t, width, T):
    """Sinusoids of the time, from fast to slow.

    emb[b, k] = sin(w_k 1000 t_b / T), then cos(...);  w_k = 10000^(-k / (width/2))  (Vaswani et al. 2017, section 3.5)

    Over the whole schedule the fastest makes 159 turns, 1000 / (2 pi); the slowest a small part of one, 0.023 at a
    width of 48, so that its sine hardly bends and says roughly how far t has come.
    t: (B,) in 0..T  ->  (B, width) float32 in [-1, 1]. The factor 1000 / T makes it the same for every T.
    """
    k = torch.arange(width // 2, dtype=torch.float32, device=t.device)
    rates = torch.exp(-math.log(10000) * k / (width // 2))                 # (width/2,)
    angles = (1000 / T * t.float())[:, None] * rates[None, :]              # (B, width/2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)                  # (B, width)


class ResBlock(nn.Module):
    """Two convolutions and a short cut; the time (and label) shifts and scales the channels in between.

    x: (B, C_in, H, W), emb: (B, E)  ->  (B, C_out, H, W)
    """

    def __init__(self, c_in, c_out, emb_width):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(emb_width, 2 * c_out)
        self.short_cut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)    # every block begins as its short cut

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale_shift(emb)[:, :, None, None].chunk(2, dim=1)    # (B, C_out, 1, 1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.short_cut(x) + self.conv2(h)


class Attention(nn.Module):
    """Every place looks at every other place.  x: (B, C, H, W) -> (B, C, H, W), N = H W places"""

    def __init__(self, channels, head_width=32):
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm = nn.GroupNorm(8, channels)
        self.to_qkv, self.to_out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, x):
        B, C, H, W = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)                   # (B, heads, N, head_width) each
        mixed = F.scaled_dot_product_attention(q, k, v)             # (B, heads, N, head_width)
        return x + self.to_out(mixed.transpose(-1, -2).reshape(B, C, H, W))


class UNet(nn.Module):
    """Down to a small map and back up, with bridges between maps of one size, told the time and maybe what to draw.

    x: (B, C, H, W), H and W divisible by patch * 2^(levels - 1);  t: (B,) in 0..T;
    y: None for "nothing asked", or for a network built with
       classes: (B,) labels in 0..classes-1
       text:    (B, L) tokens, or the Reading of them that `read` gives  ->  (B, C, H, W)

    channels: the width of each level;  blocks: residual blocks a level;  attention: whether the places of
    the lowest level look at each other.
    text: the settings of a TextEncoder. The sentence comes in twice: as a whole beside the time, and word by word
    through cross-attention, at all levels but the first.
    told_t=False builds the same network without the time, for the lesson that asks whether it needs it.
    """

    def __init__(self, in_channels=1, channels=(64, 128), blocks=2, classes=None, patch=2, T=1000, told_t=True,
                 text=None, attention=True):
        super().__init__()
        self.config = dict(in_channels=in_channels, channels=list(channels), blocks=blocks, classes=classes,
                           patch=patch, T=T, told_t=told_t, attention=attention, **({"text": text} if text else {}))
        if classes and text:
            raise ValueError("a network is asked by labels (classes) or by sentences (text), not by both")
        self.patch, self.T, self.classes, self.told_t = patch, T, classes, told_t
        self.width, width = channels[0], 4 * channels[0]
        self.time_mlp = nn.Sequential(nn.Linear(self.width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None     # the last row is "no label"
        self.text = TextEncoder(**text) if text else None
        self.whole = nn.Linear(self.text.width, width) if text else None

        folded, self.fold = in_channels * patch**2, patch * 2 ** (len(channels) - 1)
        self.first = nn.Conv2d(folded, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, bridges = channels[0], []
        for level, c_level in enumerate(channels):
            if level > 0:
                self.down.append(nn.Conv2d(c, c_level, 3, stride=2, padding=1))
                c = c_level
            for _ in range(blocks):
                self.down.append(ResBlock(c, c, width))
                bridges.append(c)
            self.down.extend(self.look_at_words(level, c))
        look_around = [Attention(c)] if attention else []
        self.middle = nn.ModuleList([ResBlock(c, c, width), *look_around, ResBlock(c, c, width)])
        for level, c_level in reversed(list(enumerate(channels))):
            for _ in range(blocks):
                self.up.append(ResBlock(c + bridges.pop(), c_level, width))
                c = c_level
            self.up.extend(self.look_at_words(level, c))
            if level > 0:
                c = channels[level - 1]
                self.up.append(nn.Sequential(nn.Conv2d(c_level, c, 1), nn.Upsample(scale_factor=2)))
        self.last = nn.Sequential(nn.GroupNorm(8, c), nn.SiLU(), nn.Conv2d(c, folded, 3, padding=1))
        nn.init.zeros_(self.last[-1].weight)

    def look_at_words(self, level, c):
        """The layers through which a level hears single words: one, or none."""
        return [CrossAttention(c, self.text.width)] if self.text is not None and level > 0 else []

    def nothing(self):
        """What y is, for one picture, when nothing is asked: the label `classes`, or the tokens of no words."""
        device = self.last[-1].weight.device
        return torch.tensor(self.classes, device=device) if self.text is None else self.text.nothing(device)

    def read(self, y, count=1):
        """Let the transformer read: what the network sees of its sentences.  (B, L) tokens -> Reading

        None is read as `count` sentences without words; a Reading is handed on as it is.
        """
        if y is None:
            return Reading(*(part.expand(count, *part.shape[1:]) for part in self.text(self.nothing()[None])))
        return y if isinstance(y, Reading) else self.text(y)

    def embed(self, t, y):
        """The time and what is asked for as one vector.  (B,), (B,) or Reading or None -> (B, E)"""
        emb = self.time_mlp(time_embedding(t, self.width, self.T) * self.told_t)
        if self.text is not None:
            emb = emb + self.whole(y.whole)
        elif self.label is not None:
            emb = emb + self.label(self.nothing().expand(len(t)) if y is None else y)
        elif y is not None:
            raise ValueError("this network was built without labels: leave y out, or build it with classes=...")
        return F.silu(emb)

    def forward(self, x, t, y=None):
        check_shape(x.shape, self)
        if any(side % self.fold for side in x.shape[-2:]):
            raise ValueError(f"height and width must be divisible by {self.fold}, got {tuple(x.shape)}: pad it")
        if self.text is not None:
            y = self.read(y, len(x))
            if len(y.whole) != len(x):
                raise ValueError(f"{len(x)} pictures but {len(y.whole)} sentences: give one to each")
        emb = self.embed(t, y)

        def through(layer, h):
            told = {ResBlock: (emb,), CrossAttention: (y,)}.get(type(layer), ())
            return layer(h, *told)

        h = self.first(F.pixel_unshuffle(x, self.patch))            # (B, C p^2, H/p, W/p) -> (B, c, H/p, W/p)
        bridges = []
        for layer in self.down:
            h = through(layer, h)                                   # now and then (B, c, H, W) -> (B, c', H/2, W/2)
            if isinstance(layer, ResBlock):
                bridges.append(h)
        for layer in self.middle:
            h = through(layer, h)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = torch.cat([h, bridges.pop()], 1)
            h = through(layer, h)                                   # now and then (B, c', H/2, W/2) -> (B, c, H, W)
        return F.pixel_shuffle(self.last(h), self.patch)            # (B, C, H, W)
