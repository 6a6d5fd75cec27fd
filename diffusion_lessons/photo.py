"""Noise removal for a photo of any size: how noisy it is, which t that is, then the denoiser in tiles."""

import torch
import torch.nn.functional as F
from PIL import Image

from diffusion_lessons.datasets.pictures import to_float

# The difference of two Laplacians: 0 wherever the picture is flat or slopes evenly    (Immerkaer 1996)
LAPLACIANS = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


def load_photo(path, longest=None):
    """Read a picture file, and make it smaller until no side exceeds `longest` pixels.

    ->  (3, H, W) float in [-1, 1]

    Raises FileNotFoundError, and ValueError when the file is no picture.
    """
    try:
        image = Image.open(path).convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}: give the path of a PNG or JPEG") from None
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}): give a PNG or JPEG") from error
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return to_float(pixels.reshape(image.height, image.width, 3).permute(2, 0, 1))


def estimate_sigma(picture):
    """How strong is the noise? The standard deviation of white Gaussian noise in a picture.

    sigma = median |picture * L| / (6 * 0.6745),   L: the difference of two Laplacians, its squares sum to 36

    L hides the picture's smooth parts (Immerkaer 1996); the median leaves out its edges (Donoho & Johnstone
    1994; 0.6745 is the median of |N(0, 1)|). Fine texture counts as noise, so it reads high on sharp photos;
    black or white areas that cut the noise off make it read low.

    picture: (C, H, W), both sides 3 or more  ->  a float, in the picture's own unit
    """
    _check_picture(picture)
    if min(picture.shape[-2:]) < 3:
        raise ValueError(f"a picture of {tuple(picture.shape)} is too small to judge its noise: 3x3 or more")
    kernel = LAPLACIANS[None, None].to(picture.device)
    response = F.conv2d(picture[:, None].float(), kernel)          # (C, 1, H-2, W-2)
    return response.abs().median().item() / (6 * 0.6745)


def time_of_sigma(schedule, sigma):
    """The t whose x_t, divided by sqrt(alpha_bar_t), is a picture with noise of strength sigma.

    x_t / sqrt(alpha_bar_t) = x0 + sqrt((1 - alpha_bar_t) / alpha_bar_t) eps
    so sigma^2 = (1 - alpha_bar_t) / alpha_bar_t,   alpha_bar_t = 1 / (1 + sigma^2)

    sigma: 0 or more, where pictures lie in [-1, 1]  ->  the nearest t in 0..T; 0 means too clean to touch
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a number >= 0, not {sigma}")
    noise = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()      # (T+1,) the sigma of every t, rising
    return int((noise - sigma).abs().argmin())


@torch.no_grad()
def denoise_photo(denoiser, picture, sigma=None, tile=32, overlap=16, batch=64):
    """Remove the noise from a photo of any size, one guess per tile; tiles overlap and are blended softly.

    denoiser: any (x_t, t) -> Prediction with a `.schedule`
    picture: (C, H, W) in [-1, 1], noise may reach beyond
    sigma: how strong its noise is, in these units; estimated if not given
    tile: the side of the pictures that the denoiser knows  ->  (C, H, W), not clipped
    """
    _check_picture(picture)
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must lie in 0..tile-1 = 0..{tile - 1}, not {overlap}")
    sigma = estimate_sigma(picture) if sigma is None else sigma
    t = time_of_sigma(denoiser.schedule, sigma)
    if t == 0:
        return picture.clone()
    x_t = picture * denoiser.schedule.alpha_bar[t].sqrt().item()

    (height, rows), (width, columns) = (_places(side, tile, tile - overlap) for side in picture.shape[-2:])
    x_t = _mirror(_mirror(x_t, -2, height), -1, width)
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


def psnr(x, truth):
    """Peak signal to noise ratio of pictures in [-1, 1], in dB: 10 log10(2^2 / mean squared error)."""
    return (10 * torch.log10(4 / (x - truth).square().mean())).item()


def _places(side, tile, stride):
    """The length that whole tiles need to cover a side, and where they begin."""
    count = max(0, -(-(side - tile) // stride)) + 1
    return tile + (count - 1) * stride, [k * stride for k in range(count)]


def _mirror(x, dim, length):
    """Lengthen x along a dimension by mirroring it, again and again if need be."""
    side = x.shape[dim]
    k = torch.arange(length) % (2 * side)
    return x.index_select(dim, torch.minimum(k, 2 * side - 1 - k).to(x.device))


def _window(tile, overlap):
    """The weight of each place of a tile: 1 within, down to almost 0 towards the edges.  (tile, tile)"""
    ramp = (torch.arange(tile) + 0.5) / max(overlap, 1)
    side = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
    return torch.outer(side, side)


def _check_picture(picture):
    if picture.ndim != 3 or not picture.is_floating_point() or picture.numel() == 0:
        raise ValueError(f"a photo is (C, H, W) float in [-1, 1], not {tuple(picture.shape)} {picture.dtype}")
