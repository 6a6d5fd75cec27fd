"""CLIP: a picture encoder and a text encoder that agree on which caption goes with which picture.

(Radford et al. 2021, figure 3.) Stable Diffusion keeps the text encoder and freezes it; the rest is needed to train it.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Downsample, ResnetBlock
from .text_encoder import TextEncoder

MAX_SCALE = math.log(100)    # of the learned temperature; CLIP, section 2.5


class PictureEncoder(nn.Module):
    """A small residual network: (B, 3, H, W) in [-1, 1] -> (B, widths[-1])"""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 192), groups: int = 8) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        levels = [nn.Sequential(Downsample(c), ResnetBlock(c, c_next, groups, 1e-5))
                  for c, c_next in zip(widths, widths[1:])]
        self.levels, self.norm = nn.Sequential(*levels), nn.GroupNorm(groups, widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.levels(self.conv_in(x)))).mean((2, 3))


class CLIP(nn.Module):
    """Both encoders, each projected to vectors of length 1 in a common space.

    text: the config of a TextEncoder;  widths: of the picture encoder;  width: of the common space
    """

    def __init__(self, text: dict, widths: Sequence[int] = (32, 64, 128, 192), width: int = 128) -> None:
        super().__init__()
        self.text_encoder, self.picture_encoder = TextEncoder(**text), PictureEncoder(widths)
        self.text_projection = nn.Linear(self.text_encoder.width, width, bias=False)
        self.picture_projection = nn.Linear(widths[-1], width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for embedding in self.text_encoder.modules():
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.02)

    def encode_pictures(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, width) of length 1"""
        return F.normalize(self.picture_projection(self.picture_encoder(x)), dim=-1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """(B, L) tokens -> (B, width) of length 1"""
        return F.normalize(self.text_projection(self.text_encoder(tokens).pooled), dim=-1)

    def similarity(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The cosine of each picture with each text.  (A, 3, H, W), (B, L) -> (A, B)"""
        return self.encode_pictures(x) @ self.encode_texts(tokens).T


def clip_loss(clip: CLIP, x: Tensor, tokens: Tensor) -> Tensor:
    """Which of the batch's texts goes with this picture, and which of its pictures with this text?

    (CE(s P T^t, i = j) + CE(s T P^t, i = j)) / 2              (Radford et al. 2021, figure 3; s learned, at most 100)

    Captions repeat in small data: a text equal to the right one is no wrong answer, so it is left out.
    x: (B, 3, H, W) in [-1, 1];  tokens: (B, L)  ->  a scalar
    """
    logits = clip.logit_scale.clamp(max=MAX_SCALE).exp() * clip.similarity(x, tokens)          # (B, B)
    equal = (tokens[:, None] == tokens[None]).all(-1)
    right = torch.arange(len(x), device=x.device)
    logits = logits.masked_fill(equal & (right[:, None] != right), -torch.inf)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


@torch.no_grad()
def retrieval_accuracy(clip: CLIP, x: Tensor, tokens: Tensor) -> float:
    """How often the right text is the nearest of all.  (B, 3, H, W), (B, L) -> a share"""
    found = clip.similarity(x, tokens).argmax(1)
    return (found == torch.arange(len(x), device=x.device)).float().mean().item()
