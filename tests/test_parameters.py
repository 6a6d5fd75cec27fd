"""Numbers that a caller chooses: the right ones pass whatever their type, all others are refused in plain words."""

import fractions
import math
import tracemalloc

import numpy as np
import pytest
import torch
from killable_run import denoiser

from diffusion_lessons import generate
from diffusion_lessons.parameters import RANGES, real_number, shown, whole_number
from diffusion_lessons.pipelines import photo, text_to_image
from diffusion_lessons.samplers import PerSampleNoise, SamplerSettings

pytestmark = pytest.mark.faults


class Rude:
    """An object that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError


def name_of(value):
    """What a test is called: the same in every process, so without addresses."""
    return shown(value).split("...")[0].split(" at 0x")[0][:30]


ODD = ["3", b"3", "", [3], (3,), [], {}, {3}, None, object(), Rude(), math.inf, -math.inf, math.nan, 2.5, 3.0, True,
       np.bool_(True), np.array([3, 4]), np.float64("nan"), torch.tensor([1, 2]), torch.tensor(True), 1j, len, int,
       -1, 2**64, -2**64, 10**5000, 10**400, np.array("3"), fractions.Fraction(1, 2), "9" * 10**6]  # fmt: skip


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)], ids=repr)
def test_whole_numbers_of_every_kind_pass(value):
    found = whole_number("count", value)
    assert (found, type(found)) == (3, int)
    found = real_number("guidance", value)
    assert (found, type(found)) == (3.0, float)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), fractions.Fraction(1, 2), torch.tensor(0.5)], ids=repr)
def test_real_numbers_of_every_kind_pass(value):
    assert real_number("eta", value) == 0.5


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_a_range_are_inside(name):
    low, high = RANGES[name]
    check = real_number if name in ("guidance", "eta") else whole_number
    assert (check(name, low), check(name, high)) == (low, high)
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"{name} must be a .*number from"):
            check(name, value)


@pytest.mark.parametrize("value", ODD, ids=name_of)
@pytest.mark.parametrize("name", ["count", "seed", "steps", "batch"])
def test_odd_values_are_refused_in_a_short_sentence(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number from ") as caught:
        whole_number(name, value)
    assert len(str(caught.value)) < 160
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["3", b"3", [3], {}, None, Rude(), math.inf, math.nan, -0.1, 100.1, True, np.True_,
                                   1j, torch.ones(2), torch.tensor(math.nan), 10**5000], ids=name_of)
def test_odd_guidance_is_refused(value):
    with pytest.raises(ValueError, match=r"^guidance must be a number from 0 to 100, not ") as caught:
        real_number("guidance", value)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("name", ["count", "seed", "steps", "guidance"])
@pytest.mark.parametrize("value", ["3", [3], math.inf, math.nan, 2**64, -1, True], ids=str)
def test_generate_refuses_odd_values_before_it_takes_memory(name, value):
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"^{name} must be"):
        generate("7", **{name: value})
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_numpys_numbers_draw_what_pythons_do():
    y = torch.tensor([0, 1])
    how = [dict(w=2, seed=3, batch=2, sampler=SamplerSettings(steps=2)),
           dict(w=np.float32(2), seed=np.uint32(3), batch=np.int16(2), sampler=SamplerSettings(steps=np.int64(2)))]
    one, other = (text_to_image.sample_images(denoiser(), y, (1, 8, 8), **settings) for settings in how)
    assert torch.equal(one, other)
    assert text_to_image.sample_images(denoiser(), np.int64(2), (1, 8, 8), **how[1]).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("how", [dict(w=math.inf), dict(w="2"), dict(seed="3"), dict(seed=[3]), dict(seed=2**64),
                                 dict(batch=0), dict(batch=1.5), dict(sampler=SamplerSettings(steps="3")),
                                 dict(sampler=SamplerSettings(steps=[3])), dict(sampler=SamplerSettings(eta=math.nan)),
                                 dict(sampler=SamplerSettings(eta="0"))], ids=str)
def test_sampling_refuses_odd_values(how):
    with pytest.raises(ValueError, match="must be a "):
        text_to_image.sample_images(denoiser(), torch.tensor([0]), (1, 8, 8), **how)


@pytest.mark.parametrize("seed", ["3", [3], 2**64, -1, 1.5, None], ids=str)
def test_noise_refuses_odd_seeds(seed):
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to 4,294,967,295"):
        PerSampleNoise(seed, 2)


@pytest.mark.parametrize("how", [dict(sigma="0.1"), dict(sigma=math.nan), dict(sigma=[0.1]), dict(tile=0),
                                 dict(tile="32"), dict(tile=1e9), dict(overlap=32), dict(overlap=-1), dict(batch=0),
                                 dict(batch=None)], ids=str)
def test_denoising_a_photo_refuses_odd_values(how):
    with pytest.raises(ValueError, match=f"{min(how)} must be a "):
        photo.denoise_photo(denoiser(), torch.zeros(1, 40, 40), **{"sigma": 0.1, **how})


@pytest.mark.parametrize("how", [dict(longest=0), dict(longest="10"), dict(crop=-5), dict(crop=math.inf)], ids=str)
def test_loading_a_photo_refuses_odd_sizes(how):
    with pytest.raises(ValueError, match=f"{min(how)} must be a whole number"):
        photo.load_photo("nowhere.png", **how)
