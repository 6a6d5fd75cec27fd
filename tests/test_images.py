"""Pictures for display: bytes, grids, galleries."""

import html
import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_lessons import images
from diffusion_lessons.classroom.style import Drawing
from diffusion_lessons.datasets import to_float


def coloured(count, height=3, width=4):
    """Pictures of one grey level each: 1, 2, 3, ..."""
    return [np.full((height, width, 3), k + 1, np.uint8) for k in range(count)]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_a_grid_holds_each_picture_in_its_place_and_white_elsewhere(count, columns, gap, border):
    sheet = images.grid(coloured(count), columns=columns, gap=gap, border=border)
    rows = -(-count // columns)
    assert sheet.shape == (rows * 3 + (rows - 1) * gap + 2 * border, columns * 4 + (columns - 1) * gap + 2 * border, 3)
    for k in range(count):
        y, x = border + k // columns * (3 + gap), border + k % columns * (4 + gap)
        assert (sheet[y:y + 3, x:x + 4] == k + 1).all()
    assert (sheet == 255).sum() == sheet.size - count * 3 * 4 * 3


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (5, (2, 3)), (10, (3, 4))])
def test_a_grid_is_as_square_as_possible(count, shape):
    assert images.grid(coloured(count, 1, 1), gap=0).shape[:2] == shape


def test_no_pictures_are_an_error():
    with pytest.raises(ValueError, match="no pictures"):
        images.grid([])


def test_tile_shows_a_batch_as_its_pictures(g):
    x = torch.randn(5, 3, 6, 7, generator=g)
    sheet = images.tile(x)
    assert sheet.shape == (13, 23, 3)
    assert (sheet[7:, 8:15] == images.as_rgb(x[4])).all()
    assert (images.tile(x[:1]) == images.as_rgb(x[0])).all()
    assert (images.tile(x[0]) == images.as_rgb(x[0])).all()


def test_as_rgb_keeps_bytes_and_clamps_floats():
    level = torch.tensor([[0, 100, 255]], dtype=torch.uint8)
    assert images.as_rgb(level)[0, :, 2].tolist() == [0, 100, 255]
    assert images.as_rgb(to_float(level)[None])[0, :, 0].tolist() == [0, 100, 255]
    assert images.as_rgb(torch.tensor([[-9.0, 0.0, 1.0, 2.0]]), white=2.0)[0, :, 1].tolist() == [0, 128, 191, 255]
    with pytest.raises(ValueError, match="show_pictures"):
        images.as_rgb(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"a picture is"):
        images.as_rgb(torch.zeros(2, 4, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gallery_holds_the_pictures_and_shows_them_enlarged(channels, g):
    x = torch.randint(256, (3, channels, 5, 6), generator=g, dtype=torch.uint8)
    gallery = images.Gallery.of(x, prompt='two "frogs" & <b>')
    for image, picture in zip(gallery, x, strict=True):
        assert (np.asarray(image.convert("RGB")) == images.as_rgb(picture)).all()
    sheet = np.asarray(gallery.grid(gap=2, zoom=3))
    assert sheet.shape == (3 * 16, 3 * 18, 3)
    assert (sheet[3 * 9:3 * 14:3, 3 * 2:3 * 8:3] == images.as_rgb(x[2])).all()
    data, metadata = gallery._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == 'Pictures: 3, of: two "frogs" & <b>'
    assert html.unescape(re.search('alt="([^"]*)"', data["text/html"])[1]) == 'Pictures: 3, of: two "frogs" & <b>'
    assert isinstance(gallery[1:], images.Gallery)
    assert (len(gallery[1:]), gallery[1:].prompt) == (2, 'two "frogs" & <b>')
    assert isinstance(gallery[0], Image.Image)
    assert images.Gallery()._repr_mimebundle_() == {}


def test_floats_and_bytes_make_the_same_gallery(g):
    x = torch.randint(256, (2, 3, 5, 6), generator=g, dtype=torch.uint8)
    pairs = zip(images.Gallery.of(x), images.Gallery.of(to_float(x)), strict=True)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)


def test_figures_and_galleries_reach_the_notebook_the_same_way():
    """Each as a PNG and as HTML with the alternative text."""
    figure = Drawing()
    figure.add_subplot().set_title("a & b")
    for shown in (figure, images.Gallery.of(torch.zeros(1, 1, 4, 4))):
        data, metadata = shown._repr_mimebundle_()
        assert set(data) == {"image/png", "text/html"}
        alt = metadata["image/png"]["alt"]
        assert f'alt="{html.escape(alt)}"' in data["text/html"]
        assert data["image/png"] in data["text/html"]


def test_png_gives_back_the_picture(g):
    picture = torch.randint(256, (9, 8, 3), generator=g, dtype=torch.uint8).numpy()
    assert (np.asarray(Image.open(io.BytesIO(images.png(Image.fromarray(picture))))) == picture).all()
