"""Noise removal for a photo of any size: how noisy it is, which t that is, then the denoiser in tiles."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

# The difference of two Laplacians: 0 wherever the picture is flat or slopes evenly    (Immerkaer 1996)
LAPLACIANS = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
WINDOW, WINDOWS = 12, 20_000    # the side of a window that estimate_sigma looks at, and how many it looks at, at most
HARDLY = 0.03                   # a mean change below 4 grey levels of 255: nobody sees it


def load_photo(path, longest: int | None = None, crop: int | None = None) -> torch.Tensor:
    """Read a picture file, turned the way the camera was held, with white behind transparent parts.

    longest: make it smaller until no side exceeds so many pixels. This averages pixels, and so removes noise
    crop: keep only the middle, at most crop x crop pixels, each as it was
    Of 16 bits, 65535 becomes white; of floats in [0, 1], 1; any other range of numbers is stretched from its lowest to
    its highest.  ->  (3, H, W) float in [-1, 1]

    Raises FileNotFoundError, and ValueError when the file is no picture, or holds NaN or infinity.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if crop is not None:
                left, top = (max(0, side - crop) // 2 for side in image.size)
                image = image.crop((left, top, left + min(crop, image.width), top + min(crop, image.height)))
            image = _grey(image, file.format) if image.mode[0] in "IF" else _colour(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}: give the path of a PNG or JPEG") from None
    except Exception as error:  # a damaged picture shows as almost any error
        raise ValueError(f"{str(path)!r} cannot be read ({error}): give a PNG or JPEG") from error
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).div_(127.5).sub_(1)
    return pixels.expand(3, -1, -1).clone() if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _colour(image):
    """A picture of at most 8 bits a channel, on white.  -> a PIL image, RGB"""
    if image.mode[-1] not in "Aa" and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _grey(image, file_format):
    """A picture of 16 bits, 32 bits or floats.  -> a PIL image of floats (mode F) in 0..255"""
    numbers = np.array(image, dtype=np.float32)    # (H, W)
    low, high = float(numbers.min()), float(numbers.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds NaN or infinity")
    if image.mode.startswith("I;16") or file_format in ("PNG", "PPM"):    # older Pillows open these as 32 bits
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return Image.fromarray((numbers - low) * (255 / max(high - low, 1e-12)))


def estimate_sigma(picture: torch.Tensor) -> float:
    """How strong is the noise? The standard deviation of Gaussian noise, white or blurred: the larger of two readings.

    1. the finest differences:     median |picture * L| / (6 * 0.6745),   L: the difference of two Laplacians
       L hides the picture's smooth parts and its squares sum to 36 (Immerkaer 1996); the median leaves out its edges
       (Donoho & Johnstone 1994; 0.6745 is the median of |N(0, 1)|). Good for white noise; a camera's noise, which
       is blurred by interpolation and JPEG, has no such fine differences.
    2. the flattest windows:   the standard deviation around the best plane, in the flattest twentieth of all windows
       of 12x12 pixels. Noise of any grain is in there, if it is finer than the window; it reads 5 to 10% low for white
       noise and 15 to 40% low for blurred noise.

    Texture that is everywhere, such as grass, counts as noise; windows that are cut off at black or white do not
    count.

    picture: (C, H, W), both sides 3 or more  ->  a float, in the picture's own unit
    """
    _check_picture(picture)
    if min(picture.shape[-2:]) < 3:
        raise ValueError(f"a picture of {tuple(picture.shape)} is too small to judge its noise (3x3 or more): "
                         "give sigma")
    windows = _sample_windows(picture.float())                                     # (N, side, side)
    response = F.conv2d(windows[:, None], LAPLACIANS[None, None].to(windows))      # (N, 1, side - 2, side - 2)
    finest = response.abs().median().item() / (6 * 0.6745)

    side = windows.shape[-1]
    at = torch.linspace(-1, 1, side, device=windows.device)
    plane = torch.stack([torch.ones(side, side), at.expand(side, side), at[:, None].expand(side, side)], 2)
    plane = torch.linalg.qr(plane.flatten(0, 1).to(windows))[0]                    # (side^2, 3) orthonormal
    flat = windows.flatten(1)
    rest = flat - (flat @ plane) @ plane.T
    spread = (rest.square().sum(1) / (side**2 - 3)).sqrt()                         # (N,)
    whole = ((flat <= picture.min()) | (flat >= picture.max())).float().mean(1) < 0.05
    return max(finest, (spread[whole] if whole.any() else spread).quantile(0.05).item())


def _sample_windows(picture):
    """Square windows from all over a picture, half overlapping or farther apart.  (C, H, W) -> (N, side, side)"""
    side = min(WINDOW, *picture.shape[-2:])
    stride = max(side // 2, int((picture.numel() / WINDOWS) ** 0.5))
    return picture.unfold(1, side, stride).unfold(2, side, stride).reshape(-1, side, side)


def describe_change(before: torch.Tensor, after: torch.Tensor) -> str:
    """How much noise removal changed a photo, in a sentence; and what to do if that is hardly anything.

    before, after: (C, H, W) in [-1, 1]; the change is the root of the mean square, in grey levels of 255
    """
    change = (after - before).square().mean().sqrt().item()
    said = f"The photo changed by {127.5 * change:.1f} grey levels of 255"
    if change >= HARDLY:
        return f"{said}."
    return (f"{said}: hardly at all. It is clean, or its noise is of a kind that the estimate does not see. "
            "If you see noise, say how strong it is: sigma = 0.1, 0.2 or 0.3.")


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
    sigma: how strong its noise is, in these units; estimated if not given. The denoiser knows white noise: blurred
    noise is removed in part. `describe_change` says how much was done
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
    low, high = (value.item() for value in picture.aminmax())
    if not -math.inf < low <= high < math.inf:
        raise ValueError("the photo holds NaN or infinity: replace them, for instance with torch.nan_to_num")
    if low >= 0 and high > 2:
        raise ValueError(f"a photo lies in [-1, 1], this one in [{low:.3g}, {high:.3g}]: call x / 127.5 - 1 on bytes")
