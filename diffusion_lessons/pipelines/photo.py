"""Remove the noise from a photo of any size: estimate its strength, convert it to a timestep, denoise in tiles."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from diffusion_lessons.images import open_picture
from diffusion_lessons.parameters import real_number, whole_number
from diffusion_lessons.schedules import Schedule

# The difference of two Laplacians: 0 wherever the picture is flat or has a constant slope    (Immerkaer 1996)
LAPLACIANS = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
WINDOW, WINDOWS = 12, 20_000    # the side of the windows in estimate_sigma, and their maximum number
LARGEST_SIDE, LARGEST_SIGMA = 100_000, 1e9
INVISIBLE = 0.03                # a root-mean-square change below 4 grey levels of 255 cannot be seen


def load_photo(path: str | Path, longest: int | None = None, crop: int | None = None) -> torch.Tensor:
    """Read a picture file, rotated as its EXIF data say, with white behind transparent parts.

    longest: shrink it until no side is longer than this. That averages pixels, so it removes noise
    crop: keep only the middle, at most crop x crop pixels, unchanged
    White is 65535 in files of 16 bits and 1 in floats in [0, 1]; any other range of floats is stretched from its lowest
    value to its highest.  ->  (3, H, W) float in [-1, 1]

    Raises FileNotFoundError, and ValueError when the file is not a picture, or holds NaN or infinity.
    """
    for name, side in (("longest", longest), ("crop", crop)):
        if side is not None:
            whole_number(name, side, 1, LARGEST_SIDE)
    image = open_picture(path, crop=crop)
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).div_(127.5).sub_(1)
    return pixels.expand(3, -1, -1).clone() if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def estimate_sigma(picture: torch.Tensor) -> float:
    """The standard deviation of Gaussian noise in a picture, white or blurred: the larger of two estimates.

    1. From the finest differences:  median |picture * L| / (6 * 0.6745),   L: the difference of two Laplacians
       L removes the smooth parts of the picture, and its squares sum to 36 (Immerkaer 1996); the median ignores the
       edges (Donoho & Johnstone 1994; 0.6745 is the median of |N(0, 1)|). Good for white noise; a camera's noise,
       which interpolation and JPEG have blurred, has no such fine differences.
    2. From the flattest windows:  the standard deviation around the best-fitting plane, in the flattest 5% of all
       windows of 12x12 pixels. They contain noise of any grain finer than the window. This is 5 to 10% too low for
       white noise and 15 to 40% too low for blurred noise.

    Texture that covers the whole picture, such as grass, counts as noise; windows clipped at black or white are
    ignored.

    picture: (C, H, W), both sides 3 or more  ->  a float, in the picture's own unit
    Raises ValueError for any other shape or type, and for NaN or infinity.
    """
    _check_picture(picture)
    if min(picture.shape[-2:]) < 3:
        raise ValueError(f"a picture of {tuple(picture.shape)} is too small to estimate its noise (3x3 or more): "
                         "give sigma")
    windows = _sample_windows(picture.float())                                     # (N, side, side)
    response = F.conv2d(windows[:, None], LAPLACIANS[None, None].to(windows))      # (N, 1, side - 2, side - 2)
    finest = response.abs().median().item() / (6 * 0.6745)

    side = windows.shape[-1]
    at = torch.linspace(-1, 1, side, device=windows.device)
    plane = torch.stack([torch.ones(side, side), at.expand(side, side), at[:, None].expand(side, side)], 2)
    plane = torch.linalg.qr(plane.flatten(0, 1).to(windows))[0]                    # (side^2, 3) orthonormal
    flat = windows.flatten(1)
    residual = flat - (flat @ plane) @ plane.T
    spread = (residual.square().sum(1) / (side**2 - 3)).sqrt()                         # (N,)
    unclipped = ((flat <= picture.min()) | (flat >= picture.max())).float().mean(1) < 0.05
    return max(finest, (spread[unclipped] if unclipped.any() else spread).quantile(0.05).item())


def _sample_windows(picture):
    """Square windows from all over a picture, overlapping by half or further apart.  (C, H, W) -> (N, side, side)"""
    side = min(WINDOW, *picture.shape[-2:])
    stride = max(side // 2, int((picture.numel() / WINDOWS) ** 0.5))
    return picture.unfold(1, side, stride).unfold(2, side, stride).reshape(-1, side, side)


def describe_change(before: torch.Tensor, after: torch.Tensor) -> str:
    """A sentence on how much noise removal changed a photo, and what to do if that is almost nothing.

    before, after: (C, H, W) in [-1, 1]; the change is the root of the mean square, in grey levels of 255
    """
    change = (after - before).square().mean().sqrt().item()
    summary = f"The photo changed by {127.5 * change:.1f} grey levels of 255"
    if change >= INVISIBLE:
        return f"{summary}."
    return (f"{summary}: hardly at all. It is clean, or it has a kind of noise that the estimate misses. "
            "If you can see noise, set its strength yourself: sigma = 0.1, 0.2 or 0.3.")


def sigma_to_t(schedule: Schedule, sigma: float) -> int:
    """The t at which x_t / sqrt(alpha_bar_t) is a picture with noise of standard deviation sigma.

    x_t / sqrt(alpha_bar_t) = x0 + sqrt((1 - alpha_bar_t) / alpha_bar_t) eps
    so sigma^2 = (1 - alpha_bar_t) / alpha_bar_t,   alpha_bar_t = 1 / (1 + sigma^2)

    sigma: 0 or more, for pictures in [-1, 1]  ->  the nearest t in 0..T; 0 means that there is no noise to remove
    Raises ValueError for any other sigma.
    """
    sigma = real_number("sigma", sigma, 0, LARGEST_SIGMA)
    noise = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()      # (T+1,) the sigma of each t, increasing
    return int((noise - sigma).abs().argmin())


@torch.no_grad()
def denoise_photo(denoiser: Any, picture: torch.Tensor, sigma: float | None = None, tile: int = 32, overlap: int = 16,
                  batch: int = 64) -> torch.Tensor:
    """Remove the noise from a photo of any size, in one step per tile; tiles overlap and are blended.

    denoiser: any (x_t, t) -> Prediction with a `.schedule`
    picture: (C, H, W) in [-1, 1]; noise may exceed that range
    sigma: the standard deviation of its noise, estimated if left out. The denoiser was trained on white noise, so it
    removes blurred noise only in part; `describe_change` says how much has changed
    tile: the size of the pictures that the denoiser was trained on  ->  (C, H, W), not clamped
    Raises ValueError for a picture or an overlap out of range.
    """
    _check_picture(picture)
    tile, batch = whole_number("tile", tile, 1, 4096), whole_number("batch", batch)
    overlap = whole_number("overlap", overlap, 0, tile - 1)
    sigma = estimate_sigma(picture) if sigma is None else sigma
    t = sigma_to_t(denoiser.schedule, sigma)
    if t == 0:
        return picture.clone()
    x_t = picture * denoiser.schedule.alpha_bar[t].sqrt().item()

    (height, rows), (width, columns) = (_tile_starts(side, tile, tile - overlap) for side in picture.shape[-2:])
    x_t = _extend(_extend(x_t, -2, height), -1, width)
    corners = [(i, j) for i in rows for j in columns]
    window = _window(tile, overlap).to(x_t)
    total, weight = torch.zeros_like(x_t), torch.zeros_like(x_t)
    for k in range(0, len(corners), batch):
        part = corners[k:k + batch]
        tiles = torch.stack([x_t[:, i:i + tile, j:j + tile] for i, j in part])            # (B, C, tile, tile)
        clean = denoiser(tiles, torch.full((len(tiles),), t, device=x_t.device)).x0
        for (i, j), x0 in zip(part, clean):
            total[:, i:i + tile, j:j + tile] += window * x0
            weight[:, i:i + tile, j:j + tile] += window
    return (total / weight)[:, :picture.shape[-2], :picture.shape[-1]]


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [-1, 1], in dB: 10 log10(2^2 / mean squared error)."""
    return (10 * torch.log10(4 / (x - truth).square().mean())).item()


def _tile_starts(side, tile, stride):
    """The length that whole tiles cover, at least `side`, and where each tile starts."""
    count = max(0, -(-(side - tile) // stride)) + 1
    return tile + (count - 1) * stride, [k * stride for k in range(count)]


def _extend(x, dim, length):
    """Extend x along a dimension by reflection, repeatedly if necessary."""
    side = x.shape[dim]
    k = torch.arange(length) % (2 * side)
    return x.index_select(dim, torch.minimum(k, 2 * side - 1 - k).to(x.device))


def _window(tile, overlap):
    """The weight of each pixel of a tile: 1 in the middle, falling to almost 0 at the edges.  (tile, tile)"""
    ramp = (torch.arange(tile) + 0.5) / max(overlap, 1)
    side = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
    return torch.outer(side, side)


def _check_picture(picture):
    if picture.ndim != 3 or not picture.is_floating_point() or picture.numel() == 0:
        raise ValueError(f"a photo is (C, H, W) float in [-1, 1], not {tuple(picture.shape)} {picture.dtype}")
    low, high = (value.item() for value in picture.aminmax())
    if not -math.inf < low <= high < math.inf:
        raise ValueError("the photo holds NaN or infinity: replace them, for example with torch.nan_to_num")
    if low >= 0 and high > 2:
        raise ValueError(f"a photo lies in [-1, 1], this one in [{low:.3g}, {high:.3g}]: call x / 127.5 - 1 on bytes")
