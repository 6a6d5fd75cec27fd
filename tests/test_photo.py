"""Noise removal: the noise is estimated, converted to a timestep, and removed without seams."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from diffusion_lessons import schedules, weights
from diffusion_lessons.datasets import to_float
from diffusion_lessons.forward import Prediction, alpha_sigma, from_x0
from diffusion_lessons.pipelines import photo

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
        signal, _ = alpha_sigma(t, self.schedule, x_t)
        return from_x0(signal * x_t, x_t, t, self.schedule)


class Look:
    """Records its input, and changes only its scale."""

    schedule = COSINE

    def __call__(self, x_t, t):
        self.x_t, self.t = x_t, t
        return Prediction(x_t * 0, x_t / alpha_sigma(t, self.schedule, x_t)[0])


def noisy(shape, sigma, seed=0, x0=0.0):
    return x0 + sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blurred_noise(shape, sigma, blur, seed=0):
    """Noise like a camera's: Gaussian, but correlated between neighbouring pixels."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (0, blur, blur), mode="wrap")
    return torch.tensor(sigma * noise / noise.std(), dtype=torch.float32)


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


@pytest.mark.parametrize("blur, least", [(0.7, 0.7), (1.0, 0.6), (1.5, 0.5)])
def test_blurred_noise_is_seen_and_not_overrated(blur, least):
    """The finest differences alone, the control, see less than a third of it."""
    shares, finest = [], []
    for seed in range(6):
        picture = slope(96, 120) + blurred_noise((3, 96, 120), 0.3, blur, seed)
        shares.append(photo.estimate_sigma(picture) / 0.3)
        response = F.conv2d(picture[:, None], photo.LAPLACIANS[None, None])
        finest.append(response.abs().median().item() / (6 * 0.6745) / 0.3)
    assert max(finest) < 1 / 3
    assert least < sum(shares) / 6 < 1.02


def test_noise_is_judged_where_it_is_not_cut_off():
    """Half of the picture is overexposed: all white, and without noise."""
    picture = (slope(96, 120) * 0.5 + blurred_noise((3, 96, 120), 0.2, 1.0)).clamp(-1, 1)
    expected = photo.estimate_sigma(picture)
    picture[:, :, 60:] = 1.0
    assert photo.estimate_sigma(picture) == pytest.approx(expected, rel=0.15)


def test_a_large_picture_is_judged_by_a_sample_of_its_windows():
    picture = noisy((3, 1800, 2400), 0.25)
    assert len(photo._sample_windows(picture)) < 1.5 * photo.WINDOWS
    assert photo.estimate_sigma(picture) == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 3, 200), (3, 5, 4), (1, 11, 12)])
def test_small_pictures_can_be_judged_too(shape):
    found = [photo.estimate_sigma(noisy(shape, 0.2, seed)) for seed in range(40)]
    assert 0.07 < sum(found) / 40 < 0.35


@pytest.mark.skipif("cifar" not in weights.available(), reason="needs the network for photos")
@pytest.mark.parametrize("blur, gain", [(0.0, 9.0), (0.7, 3.5), (1.0, 1.7)])
def test_a_real_photo_gets_cleaner_without_being_told_its_noise(blur, gain):
    """Measured on a larger part: 11.8, 5.0 and 2.7 dB. With the finest differences alone: 11.8, 1.9, 0.5."""
    truth = F.avg_pool2d(to_float(torch.tensor(data.chelsea())).permute(2, 0, 1), 2)[:, 20:116, 60:156]
    seen = (truth + blurred_noise(truth.shape, 0.3, blur)).clamp(-1, 1)
    after = photo.denoise_photo(weights.load_model("cifar"), seen).clamp(-1, 1)
    assert photo.psnr(after, truth) > photo.psnr(seen, truth) + gain
    assert "hardly" not in photo.describe_change(seen, after)


def test_the_change_is_told_in_grey_levels():
    before = torch.zeros(3, 8, 8)
    said = photo.describe_change(before, before + 0.1)
    assert said == "The photo changed by 12.8 grey levels of 255."
    said = photo.describe_change(before, before - 0.01)
    assert "1.3 grey levels of 255: hardly at all" in said
    assert "sigma = 0.1" in said


def test_a_smooth_picture_has_no_noise():
    assert photo.estimate_sigma(slope(64, 64)) < 0.002
    assert photo.estimate_sigma(torch.full((1, 9, 9), 0.3)) < 1e-6


def test_sigma_grows_with_the_picture():
    picture = noisy((1, 40, 40), 0.2)
    assert photo.estimate_sigma(3 * picture + 1) == pytest.approx(3 * photo.estimate_sigma(picture), rel=1e-4)


@given(st.integers(1, 990))
def test_sigma_to_t_inverts_the_schedule(t):
    a = COSINE.alpha_bar[t].item()
    assert photo.sigma_to_t(COSINE, ((1 - a) / a) ** 0.5) == t


def test_sigma_to_t_at_the_ends():
    assert photo.sigma_to_t(COSINE, 0.0) == 0
    assert photo.sigma_to_t(COSINE, 1e9) == 1000
    assert photo.sigma_to_t(COSINE, 1.0) == pytest.approx(497, abs=5)     # alpha_bar = 1/2
    with pytest.raises(ValueError, match="sigma must be"):
        photo.sigma_to_t(COSINE, float("nan"))
    with pytest.raises(ValueError, match="sigma must be"):
        photo.sigma_to_t(COSINE, -0.1)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (33, 77), (100, 51), (7, 90), (1, 1), (5, 3)])
@pytest.mark.parametrize("tile, overlap", [(32, 16), (32, 0), (32, 31), (20, 7)])
def test_a_pointwise_denoiser_leaves_no_seam(size, tile, overlap):
    if overlap == 31 and max(size) > 64:
        size = (33, 40)                     # a tile for every pixel: keep it small
    picture, denoiser = noisy((3, *size), 1.0), Shrink()
    out = photo.denoise_photo(denoiser, picture, sigma=0.5, tile=tile, overlap=overlap)
    a = COSINE.alpha_bar[photo.sigma_to_t(COSINE, 0.5)].item()
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
    """The denoiser returns the tile's number: the result changes smoothly from each number to the next."""

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


# ---------------------------------------------------------------- files


def picture_file(path, array, mode=None, **how):
    """Write an array as a picture file.  -> its path"""
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path, **how)
    return path


def test_photos_are_read_made_smaller_and_cropped(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 127)).save(tmp_path / "a.png")
    x = photo.load_photo(tmp_path / "a.png")
    assert x.shape == (3, 20, 40)
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([1.0, -1.0, 127 / 127.5 - 1]))
    assert photo.load_photo(tmp_path / "a.png", longest=10).shape == (3, 5, 10)
    Image.new("L", (4, 4), 255).save(tmp_path / "grey.png")
    assert torch.equal(photo.load_photo(tmp_path / "grey.png"), torch.ones(3, 4, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (31, 40), (64, 7)])
def test_a_crop_is_the_middle_with_every_pixel_as_it_was(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = picture_file(tmp_path / "a.png", pixels)
    whole = photo.load_photo(path)
    assert torch.equal(whole, to_float(torch.from_numpy(pixels)).permute(2, 0, 1))
    part, (high, wide) = photo.load_photo(path, crop=16), size
    top, left = max(0, high - 16) // 2, max(0, wide - 16) // 2
    assert torch.equal(part, whole[:, top:top + 16, left:left + 16])


@pytest.mark.slow
def test_a_photo_of_50_megapixels_keeps_its_noise_in_a_crop_and_loses_it_when_made_smaller(tmp_path):
    tile = (128 + 40 * np.random.default_rng(0).standard_normal((250, 400, 3))).clip(0, 255).astype(np.uint8)
    path = picture_file(tmp_path / "large.png", np.tile(tile, (25, 20, 1)), compress_level=1)
    assert Image.open(path).size == (8000, 6250)
    crop = photo.load_photo(path, crop=320)
    assert crop.shape == (3, 320, 320)
    assert photo.estimate_sigma(crop) == pytest.approx(40 / 127.5, rel=0.05)
    assert photo.estimate_sigma(photo.load_photo(path, longest=320)) < 0.03


TURNS = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
         6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["RGB", "RGBA", "I;16"])
def test_a_photo_is_turned_the_way_the_camera_was_held(tmp_path, turn, kind):
    exif = Image.Exif()
    exif[274] = turn    # Exif 2.3, tag Orientation
    rng = np.random.default_rng(0)
    if kind == "I;16":
        pixels = rng.integers(0, 65536, (5, 9), dtype=np.uint16)
        upright = np.repeat(TURNS[turn](pixels)[None], 3, 0) / 32767.5 - 1
    else:
        pixels = rng.integers(0, 256, (5, 9, len(kind)), dtype=np.uint8)
        pixels[:, :, 3:] = 255
        upright = TURNS[turn](pixels[:, :, :3]).transpose(2, 0, 1) / 127.5 - 1
    x = photo.load_photo(picture_file(tmp_path / "a.png", pixels, exif=exif))
    torch.testing.assert_close(x, torch.tensor(upright.copy(), dtype=torch.float32), rtol=0, atol=1e-5)


def test_what_is_transparent_is_white_whatever_colour_hides_there(tmp_path):
    rng = np.random.default_rng(0)
    alpha = np.zeros((6, 8), np.uint8)
    alpha[2:4], alpha[4:] = 255, 51                                     # a fifth
    colour = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    over_white = colour / 127.5 - 1
    over_white = (over_white * alpha[..., None] + 255 - alpha[..., None]) / 255
    for ending in ("png", "webp", "tif"):
        path = picture_file(tmp_path / f"a.{ending}", np.dstack([colour, alpha]), lossless=True)
        x = photo.load_photo(path)
        assert (x[:, :2] == 1).all()
        rounding = 2.1 / 127.5 if ending != "webp" else 6 / 127.5       # WebP changes colours under low alpha a little
        assert np.abs(x.numpy().transpose(1, 2, 0) - over_white).max() < rounding
    grey = photo.load_photo(picture_file(tmp_path / "la.png", np.dstack([colour[..., 0], alpha])))
    assert np.abs(grey[1].numpy() - over_white[..., 0]).max() < 2.1 / 127.5


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_transparent_colours_of_a_palette_are_white(tmp_path, ending):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.putpixel((1, 2), 1)
    image.save(tmp_path / f"a.{ending}", transparency=0)
    x = photo.load_photo(tmp_path / f"a.{ending}")
    torch.testing.assert_close(x[:, 2, 1], torch.tensor([200, 30, 30]) / 127.5 - 1)
    assert (x == 1).sum() == 3 * 15
    Image.new("L", (4, 4), 7).save(tmp_path / "grey.png", transparency=7)
    assert (photo.load_photo(tmp_path / "grey.png") == 1).all()


DEEP = {
    "16 bits": (np.uint16, 65535, ["png", "tif"]), "floats in 0..1": (np.float32, 1, ["tif"]),
    "floats in 0..255": (np.float32, 255, ["tif"]), "32 bits": (np.int32, 2**31 - 1, ["tif"]),
    "floats in -3..3": (np.float32, 3, ["tif"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_scaled_and_not_cut_off(tmp_path, name):
    dtype, top, endings = DEEP[name]
    low = -top if "-" in name else 0
    ramp = np.broadcast_to(np.linspace(low, top, 101), (4, 101)).astype(dtype)
    for ending in endings:
        x = photo.load_photo(picture_file(tmp_path / f"a.{ending}", ramp))
        torch.testing.assert_close(x, torch.linspace(-1, 1, 101).expand(3, 4, 101), rtol=0, atol=1e-4)


def test_a_dark_picture_of_16_bits_or_floats_stays_dark(tmp_path):
    for array in (np.full((4, 4), 6553, np.uint16), np.full((4, 4), 0.1, np.float32)):
        x = photo.load_photo(picture_file(tmp_path / "a.tif", array))
        torch.testing.assert_close(x, torch.full((3, 4, 4), -0.8), rtol=0, atol=1e-4)


def test_other_kinds_of_colour(tmp_path):
    halves = np.zeros((4, 8, 3), np.uint8)
    halves[:, 4:] = 255
    wanted = to_float(torch.from_numpy(halves)).permute(2, 0, 1)
    for name, mode in (("bits.png", "1"), ("grey.png", "L"), ("cmyk.tif", "CMYK"), ("a.bmp", "RGB"), ("a.gif", "P")):
        assert torch.equal(photo.load_photo(picture_file(tmp_path / name, halves, mode)), wanted), name
    first, second = Image.fromarray(halves), Image.fromarray(halves[:, ::-1].copy())
    first.save(tmp_path / "film.gif", save_all=True, append_images=[second])
    assert torch.equal(photo.load_photo(tmp_path / "film.gif"), wanted)      # the first picture of a film
    for name in ("a.jpg", "a.webp"):
        x = photo.load_photo(picture_file(tmp_path / name, np.kron(halves, np.ones((8, 8, 1), np.uint8))))
        assert (x[:, :, :28] < -0.95).all()
        assert (x[:, :, 36:] > 0.95).all()


def encoded(kind):
    """A small picture file in bytes."""
    file = io.BytesIO()
    Image.effect_noise((24, 20), 60).save(file, kind)
    return file.getvalue()


FILES = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")}


@given(st.sampled_from(list(FILES)), st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_file_gives_a_picture_or_says_that_it_cannot_be_read(tmp_path_factory, kind, at, junk, cut):
    data = FILES[kind]
    path = tmp_path_factory.mktemp("damaged") / "a.bin"
    path.write_bytes(data[:at] if cut else data[:at] + junk + data[at + len(junk):])
    try:
        x = photo.load_photo(path)
    except ValueError as error:
        said = str(error)
    else:
        said = "cannot be read" if x.ndim == 3 and x.isfinite().all() else f"what is {tuple(x.shape)}?"
    assert "cannot be read" in said


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        photo.load_photo(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        photo.load_photo(tmp_path / "text.png")
    with pytest.raises(ValueError, match="overlap"):
        photo.denoise_photo(Shrink(), torch.zeros(1, 8, 8), sigma=0.1, tile=8, overlap=8)
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        photo.denoise_photo(Shrink(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"too small .* give sigma"):
        photo.estimate_sigma(torch.zeros(1, 2, 8))
    for hole in (float("nan"), float("inf")):
        picture = torch.zeros(1, 8, 8)
        picture[0, 1, 1] = hole
        with pytest.raises(ValueError, match="NaN or infinity"):
            photo.denoise_photo(Shrink(), picture, sigma=0.1)
        with pytest.raises(ValueError, match="NaN or infinity"):
            photo.load_photo(picture_file(tmp_path / "hole.tif", picture[0].numpy()))
    with pytest.raises(ValueError, match=r"lies in \[-1, 1\], this one in \[0, 255\]"):
        photo.estimate_sigma(255 * torch.eye(8)[None])
