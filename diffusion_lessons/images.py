"""Picture files read; pictures for display: as bytes, in grids, in a gallery for notebooks, with alternative text."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffusion_lessons.datasets.labeled_images import to_uint8


def open_picture(path: str | Path | BinaryIO, crop: int | None = None, at_least: int | None = None) -> Image.Image:
    """Read a picture file, rotated as its EXIF data say, white behind transparent parts; of a film the first frame.

    crop: keep only the middle, at most crop x crop pixels, unchanged
    at_least: a JPEG may be decoded at a fraction of its size, several times as fast, if both sides keep so many pixels
    White is 65535 in files of 16 bits and 1 in floats in [0, 1]; any other range of floats is stretched from its lowest
    value to its highest.  ->  a PIL image, RGB; of 16 bits, 32 bits or floats: grey in 0..255 (mode F)

    Raises FileNotFoundError, and ValueError when the file is not a picture, or holds NaN or infinity.
    """
    try:
        with Image.open(path) as file:
            if at_least is not None:
                file.draft(None, (at_least, at_least))
            image = ImageOps.exif_transpose(file)
            if crop is not None:
                left, top = (max(0, side - crop) // 2 for side in image.size)
                image = image.crop((left, top, left + min(crop, image.width), top + min(crop, image.height)))
            return _grey(image, file.format) if image.mode[0] in "IF" else _colour(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {str(path)!r}: give the path of a PNG or JPEG file") from None
    except Exception as error:  # a damaged picture can raise almost any error
        raise ValueError(f"{str(path)!r} cannot be read ({error}): give a PNG or JPEG file") from error


def _colour(image: Image.Image) -> Image.Image:
    """A picture of at most 8 bits per channel, on white.  -> a PIL image in RGB"""
    if image.mode[-1] not in "Aa" and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _grey(image: Image.Image, file_format: str | None) -> Image.Image:
    """A picture of 16 bits, 32 bits or floats.  -> a PIL image of floats (mode F) in 0..255"""
    values = np.array(image, dtype=np.float32)    # (H, W)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds NaN or infinity")
    if image.mode.startswith("I;16") or file_format in ("PNG", "PPM"):    # older Pillows open these as 32 bits
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return Image.fromarray((values - low) * (255 / max(high - low, 1e-12)))


def as_rgb(picture: Tensor, white: float = 1.0) -> np.ndarray:
    """One picture as bytes for the screen: -1 becomes black, `white` and above becomes white.

    picture: (H, W), (1, H, W), (3, H, W), or a batch of one of these; uint8 or float  ->  (H, W, 3) uint8
    Raises ValueError for any other shape.
    """
    x = torch.as_tensor(picture).detach().cpu()
    if x.ndim == 4 and len(x) == 1:
        x = x[0]
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise ValueError(f"a picture is (1, H, W) or (3, H, W), not {tuple(x.shape)}; "
                         "show one of a batch, or all of them with show_pictures")
    x = x if x.dtype == torch.uint8 else to_uint8(x / white)
    return x.expand(3, -1, -1).permute(1, 2, 0).numpy()


def grid(pictures: Sequence[np.ndarray], columns: int | None = None, gap: int = 1, border: int = 0) -> np.ndarray:
    """Pictures in rows on one white sheet, in as square a grid as possible.

    pictures: (H, W, 3) uint8, all of one size (see `as_rgb`);  columns: in a row, chosen if left out
    gap, border: pixels between pictures, and around all of them  ->  (h, w, 3) uint8
    Raises ValueError when there are no pictures.
    """
    if not len(pictures):
        raise ValueError("there are no pictures to show: the batch is empty")
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = (side + gap for side in pictures[0].shape[:2])
    sheet = np.full((rows * height - gap + 2 * border, columns * width - gap + 2 * border, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = border + k // columns * height, border + k % columns * width
        sheet[top:top + height - gap, left:left + width - gap] = picture
    return sheet


def tile(x: Tensor) -> np.ndarray:
    """A batch as one picture, in as square a grid as possible, with white lines between.

    x: (B, C, H, W) or (C, H, W), uint8 or float in [-1, 1]  ->  (h, w, 3) uint8
    """
    return grid([as_rgb(picture) for picture in (x if x.ndim == 4 else [x])])


class Gallery(list[Image.Image]):
    """A list of PIL images that a notebook shows as a grid.  prompt: what they were generated from"""

    def __init__(self, pictures: Iterable[Image.Image] = (), prompt: str = ""):
        super().__init__(pictures)
        self.prompt = prompt

    @classmethod
    def of(cls, x: Tensor, prompt: str = "") -> "Gallery":
        """x: (N, C, H, W) uint8, or float in [-1, 1]"""
        pixels = (x if x.dtype == torch.uint8 else to_uint8(x)).permute(0, 2, 3, 1).cpu().numpy()    # (N, H, W, C)
        return cls((Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels), prompt)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> "Gallery": ...
    def __getitem__(self, index: Any) -> Any:
        """One image, or for a slice a Gallery."""
        chosen = super().__getitem__(index)
        return Gallery(chosen, self.prompt) if isinstance(index, slice) else chosen

    def grid(self, gap: int = 2, zoom: int = 4) -> Image.Image:
        """All of them on one white sheet, each pixel enlarged `zoom` times."""
        sheet = grid([np.asarray(picture.convert("RGB")) for picture in self], gap=gap, border=gap)
        return Image.fromarray(sheet.repeat(zoom, 0).repeat(zoom, 1))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if not self:
            return {}
        return mimebundle(png(self.grid()), f"Pictures: {len(self)}" + f", of: {self.prompt}" * bool(self.prompt))


def png(image: Image.Image) -> bytes:
    """A PIL image as the bytes of a PNG file, written quickly rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def html_image(png: bytes, alt: str) -> str:
    """An HTML tag that contains a PNG and its alternative text."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width:100%">'


def mimebundle(png: bytes, alt: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What a notebook shows for a picture, for _repr_mimebundle_.  -> (data, metadata)

    JupyterLab takes the alternative text from the HTML only; converters to PDF take the PNG.
    """
    data = base64.b64encode(png).decode()
    return {"image/png": data, "text/html": html_image(png, alt)}, {"image/png": {"alt": alt}}
