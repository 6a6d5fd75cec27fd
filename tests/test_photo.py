"""The noise removal plug-in: the noise is measured, found on the schedule, and removed without seams."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_lessons import photo, schedules
from diffusion_lessons.forward import Prediction, from_x0, signal_and_noise

COSINE = schedules.cosine(1000)


class Shrink:
    """The exact denoiser of independent N(0, 1) pixels: pointwise, so it cannot see the edge of a tile.

    E[x0 | x_t] = sqrt(alpha_bar_t) x_t
    """

    schedule = COSINE

    def __init__(self):
        self.shapes = []

    def __call__(self, x_t, t):
        self.shapes.append(tuple(x_t.shape))
        signal, _ = signal_and_noise(t, self.schedule, x_t)
        return from_x0(signal * x_t, x_t, t, self.schedule)


class Look:
    """Keeps what it was given and changes nothing but the scale."""

    schedule = COSINE

    def __call__(self, x_t, t):
        self.x_t, self.t = x_t, t
        return Prediction(x_t * 0, x_t / signal_and_noise(t, self.schedule, x_t)[0])


def noisy(shape, sigma, seed=0, x0=0.0):
    return x0 + sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slope(height, width):
    """A smooth colour picture with one hard edge."""
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    picture = torch.stack([0.6 * x + 0 * y, 0.5 * y + 0 * x, 0.3 * x * y])
    picture[:, height // 3: height // 2, width // 4: width // 2] = 0.9
    return picture


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5, 2.0])
def test_sigma_is_estimated_within_a_twentieth(sigma):
    # the standard error on 3 x 96 x 120 pixels is below 1.5 %; the edge takes the rest
    picture = noisy((3, 96, 120), sigma, x0=slope(96, 120))
    assert photo.estimate_sigma(picture) == pytest.approx(sigma, rel=0.05)


def test_a_smooth_picture_has_no_noise():
    assert photo.estimate_sigma(slope(64, 64)) < 0.002
    assert photo.estimate_sigma(torch.full((1, 9, 9), 0.3)) < 1e-6


def test_sigma_grows_with_the_picture():
    picture = noisy((1, 40, 40), 0.2)
    assert photo.estimate_sigma(3 * picture + 1) == pytest.approx(3 * photo.estimate_sigma(picture), rel=1e-4)


@given(st.integers(1, 990))
def test_time_of_sigma_inverts_the_schedule(t):
    a = COSINE.alpha_bar[t].item()
    assert photo.time_of_sigma(COSINE, ((1 - a) / a) ** 0.5) == t


def test_time_of_sigma_at_the_ends():
    assert photo.time_of_sigma(COSINE, 0.0) == 0
    assert photo.time_of_sigma(COSINE, 1e9) == 1000
    assert photo.time_of_sigma(COSINE, 1.0) == pytest.approx(497, abs=5)     # alpha_bar = 1/2
    with pytest.raises(ValueError, match="sigma must be"):
        photo.time_of_sigma(COSINE, float("nan"))
    with pytest.raises(ValueError, match="sigma must be"):
        photo.time_of_sigma(COSINE, -0.1)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (33, 77), (100, 51), (7, 90), (1, 1), (5, 3)])
@pytest.mark.parametrize("tile, overlap", [(32, 16), (32, 0), (32, 31), (20, 7)])
def test_a_pointwise_denoiser_leaves_no_seam(size, tile, overlap):
    if overlap == 31 and max(size) > 64:
        size = (33, 40)                     # a tile for every pixel: keep it small
    picture, denoiser = noisy((3, *size), 1.0), Shrink()
    out = photo.denoise_photo(denoiser, picture, sigma=0.5, tile=tile, overlap=overlap)
    a = COSINE.alpha_bar[photo.time_of_sigma(COSINE, 0.5)].item()
    assert out.shape == picture.shape
    torch.testing.assert_close(out, a * picture, rtol=1e-5, atol=1e-6)
    assert all(shape[1:] == (3, tile, tile) for shape in denoiser.shapes)


def test_the_input_is_scaled_to_its_time():
    picture, look = noisy((1, 32, 32), 0.7), Look()
    out = photo.denoise_photo(look, picture, sigma=0.7)
    a = COSINE.alpha_bar[look.t[0]].item()
    assert a == pytest.approx(1 / (1 + 0.7**2), rel=0.01)
    torch.testing.assert_close(look.x_t[0], a**0.5 * picture)
    torch.testing.assert_close(out, picture)


def test_noise_is_removed_as_well_as_theory_says():
    # x0 ~ N(0, 1), noise 0.5: the best possible squared error is s^2 / (1 + s^2) = 0.2
    x0 = noisy((1, 128, 128), 1.0, seed=1)
    seen = noisy((1, 128, 128), 0.5, seed=2, x0=x0)
    out = photo.denoise_photo(Shrink(), seen, sigma=0.5)
    assert (out - x0).square().mean().item() == pytest.approx(0.2, rel=0.04)
    assert photo.psnr(out, x0) > photo.psnr(seen, x0) + 0.8


def test_without_sigma_the_estimate_is_used():
    picture = noisy((3, 64, 64), 0.3, x0=slope(64, 64))
    out = photo.denoise_photo(Shrink(), picture)
    with_estimate = photo.denoise_photo(Shrink(), picture, sigma=photo.estimate_sigma(picture))
    assert torch.equal(out, with_estimate)
    assert not torch.allclose(out, photo.denoise_photo(Shrink(), picture, sigma=0.8), atol=1e-2)


def test_a_constant_picture_comes_back_as_it_is():
    picture = torch.full((3, 40, 50), -0.2)
    out = photo.denoise_photo(Shrink(), picture)
    assert torch.equal(out, picture)
    assert out is not picture


def test_tiles_are_blended_and_not_cut():
    """The denoiser answers with the tile's number: the result slides from each number to the next."""

    class Numbered:
        schedule = COSINE

        def __call__(self, x_t, t):
            numbers = torch.arange(len(x_t)).float().reshape(-1, 1, 1, 1)
            return Prediction(x_t, numbers.expand_as(x_t))

    four_tiles = torch.zeros(1, 32, 80)
    out = photo.denoise_photo(Numbered(), four_tiles, sigma=0.5, tile=32, overlap=16)[0, 0]
    assert out[0] == 0
    assert out[-1] == 3
    assert (out.diff() >= -1e-6).all()
    assert out.diff().max() < 0.1            # no jump: a cut would be 1


def test_psnr_of_a_known_error():
    # 10 log10(4 / 0.04) = 20
    assert photo.psnr(torch.full((1, 4, 4), 0.2), torch.zeros(1, 4, 4)) == pytest.approx(20.0)


def test_photos_are_read_and_made_smaller(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 127)).save(tmp_path / "a.png")
    x = photo.load_photo(tmp_path / "a.png")
    assert x.shape == (3, 20, 40)
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([1.0, -1.0, 127 / 127.5 - 1]))
    assert photo.load_photo(tmp_path / "a.png", longest=10).shape == (3, 5, 10)
    Image.new("L", (4, 4), 255).save(tmp_path / "grey.png")
    assert torch.equal(photo.load_photo(tmp_path / "grey.png"), torch.ones(3, 4, 4))


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        photo.load_photo(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        photo.load_photo(tmp_path / "text.png")
    with pytest.raises(ValueError, match="overlap"):
        photo.denoise_photo(Shrink(), torch.zeros(1, 8, 8), sigma=0.1, tile=8, overlap=8)
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        photo.denoise_photo(Shrink(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="too small"):
        photo.estimate_sigma(torch.zeros(1, 2, 8))
