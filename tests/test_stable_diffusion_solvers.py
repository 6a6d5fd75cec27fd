"""Euler, DPM-Solver++ (2M) and DDIM in Stable Diffusion's terms: whole loops against diffusers' schedulers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from diffusion_lessons.forward import TO_PREDICTION
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.models.stable_diffusion.scheduler import KNOWN, Scheduler, scaled_linear
from diffusion_lessons.samplers import SamplingLoop, run, timesteps
from diffusion_lessons.solvers import dpmpp_2m_step, euler_step

BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
THEIRS = {"ddim": (DDIMScheduler, dict(clip_sample=False)), "euler": (EulerDiscreteScheduler, {}),
          "dpm++": (DPMSolverMultistepScheduler, {})}


def raw_output(x_t, t):
    """What a network with an opinion would say at our time t; near x_t, so that as eps it leaves x0_hat of size 1."""
    told = torch.sin(t / 77).reshape(-1, 1, 1, 1).to(x_t)
    return x_t + 0.3 * (torch.tanh(1.3 * x_t + 0.7 * x_t.roll(1, -1)) + 0.5 * told)


def their_scheduler(method, schedule, dtype, **settings):
    """A scheduler of diffusers on our table, so that its float32 table does not blur the comparison."""
    kind, more = THEIRS[method]
    theirs = kind(**{**BETAS, **more, **settings})
    assert (theirs.alphas_cumprod.double() - schedule.alpha_bar[1:]).abs().max() < 1e-6
    theirs.alphas_cumprod = schedule.alpha_bar[1:].to(dtype)
    return theirs


def their_loop(theirs, steps, z):
    """Every x_s of their loop, in variance-preserving coordinates as ours are."""
    theirs.set_timesteps(steps)
    x, seen = z * theirs.init_noise_sigma, []
    for timestep in theirs.timesteps:
        scaled = theirs.scale_model_input(x, timestep)
        said = raw_output(scaled, torch.full((len(x),), int(timestep) + 1))
        x = theirs.step(said, timestep, x).prev_sample
        seen.append(x)
    if isinstance(theirs, EulerDiscreteScheduler):
        seen = [x / (sigma**2 + 1) ** 0.5 for x, sigma in zip(seen, theirs.sigmas[1:], strict=True)]
    return theirs.timesteps.tolist(), seen


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-5), (torch.float32, 1e-4)])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing, offset", [("trailing", 0), ("leading", 0), ("leading", 1)])
@pytest.mark.parametrize("method", THEIRS)
def test_every_x_of_the_loop_is_that_of_diffusers(method, spacing, offset, prediction_type, dtype, atol, g):
    settings = dict(timestep_spacing=spacing, steps_offset=offset, prediction_type=prediction_type)
    name = THEIRS[method][0].__name__
    ours = Scheduler.from_config({"_class_name": name, **BETAS, **settings, "clip_sample": False})
    assert ours.method == method

    def denoiser(x_t, t):
        return TO_PREDICTION[ours.prediction_type](raw_output(x_t, t), x_t, t, ours.schedule)

    for steps in (1, 2, 10, 50):
        z = torch.randn(3, 4, 2, 2, generator=g, dtype=torch.float64).to(dtype)
        theirs = their_scheduler(method, ours.schedule, dtype, **settings)
        timesteps_theirs, wanted = their_loop(theirs, steps, z)
        times = ours.timesteps(steps)
        loop = SamplingLoop(denoiser, ours.noise_scale(times) * z, ours.schedule, times, method=method)
        found = list(loop)
        assert [step.t for step in found] == [timestep + 1 for timestep in timesteps_theirs]
        assert found[-1].s == 0
        for a, b in zip(found, wanted, strict=True):
            assert a.x_s.dtype == dtype
            torch.testing.assert_close(a.x_s, b.to(dtype), rtol=0, atol=atol)
        assert found[-1].x_s.std() > 0.02
        assert torch.equal(loop.x_t, found[-1].x_s)
        assert torch.equal(found[0].x_s, found[-1].x_t) or steps != 2


def test_without_set_alpha_to_one_ddim_ends_at_t_1(g):
    """As Stable Diffusion 1.5's own file says, with timesteps 981, 961, ... 1."""
    settings = dict(set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    ours = Scheduler.from_config({"_class_name": "DDIMScheduler", **BETAS, **settings})
    theirs = their_scheduler("ddim", ours.schedule, torch.float64, **settings)
    theirs.final_alpha_cumprod = ours.schedule.alpha_bar[1]

    def denoiser(x_t, t):
        return TO_PREDICTION["eps"](raw_output(x_t, t), x_t, t, ours.schedule)

    for steps in (3, 50):
        z = torch.randn(2, 4, 2, 2, generator=g, dtype=torch.float64)
        _, wanted = their_loop(theirs, steps, z)
        times = ours.timesteps(steps)
        assert times[-1] == 1
        torch.testing.assert_close(run(SamplingLoop(denoiser, z, ours.schedule, times)), wanted[-1], rtol=0, atol=1e-9)


def test_the_published_files_are_read():
    folder = Path(__file__).parent / "data" / "stable_diffusion"
    sd15, turbo = (Scheduler.from_config(json.loads((folder / f"{name}.json").read_text())["scheduler"])
                   for name in ("sd15", "sd_turbo"))
    assert (sd15.method, sd15.prediction_type, sd15.last) == ("ddim", "eps", 1)
    assert sd15.timesteps(50)[:3] == [982, 962, 942]
    assert sd15.timesteps(50)[-2:] == [2, 1]
    assert (turbo.method, turbo.timesteps(1), turbo.timesteps(4)) == ("euler", [1000, 0], [1000, 750, 500, 250, 0])
    for scheduler in (sd15, turbo):
        assert scheduler.schedule.alpha_bar[-1].item() == pytest.approx(0.0046601, abs=1e-6)


def test_euler_is_ddim_in_other_coordinates(g):
    schedule = scaled_linear()
    for denoiser in (IdealDenoiser(torch.randn(5, 1, 2, 2, generator=g, dtype=torch.float64), schedule),):
        z = torch.randn(4, 1, 2, 2, generator=g, dtype=torch.float64)
        for a, b in zip(SamplingLoop(denoiser, z, schedule, timesteps(1000, 20), method="ddim"),
                        SamplingLoop(denoiser, z, schedule, timesteps(1000, 20), method="euler"), strict=True):
            torch.testing.assert_close(a.x_s, b.x_s, rtol=0, atol=1e-10)


def test_the_second_order_is_second_order(g):
    """Half the step divides DDIM's error by 2 and DPM-Solver++'s by about 4, on a Gaussian's exact score."""
    schedule = scaled_linear()

    def gaussian(x_t, t):
        """Data N(0, 0.5^2): x0_hat = 0.25 sqrt(ab) / (0.25 ab + 1 - ab) x_t"""
        ab = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        return TO_PREDICTION["x0"](0.25 * ab.sqrt() / (0.25 * ab + 1 - ab) * x_t, x_t, t, schedule)

    z = torch.randn(64, 1, 1, 1, generator=g, dtype=torch.float64)
    span = [1000, 200]    # away from t = 0, where the last step is of the first order for all

    def end(method, steps):
        times = [round(span[0] + (span[1] - span[0]) * k / steps) for k in range(steps + 1)]
        return run(SamplingLoop(gaussian, z, schedule, times, method=method))

    exact = end("ddim", 800)
    exact = 2 * exact - end("ddim", 400)      # Richardson: the first-order error of 800 steps is that of 400, halved
    error = {(method, steps): (end(method, steps) - exact).abs().mean().item()
             for method in ("ddim", "dpm++") for steps in (10, 20, 40)}
    for steps in (10, 20):
        assert 1.7 < error["ddim", steps] / error["ddim", 2 * steps] < 2.4
        assert 3 < error["dpm++", steps] / error["dpm++", 2 * steps] < 5
    assert error["dpm++", 10] < error["ddim", 40]


def test_the_first_and_the_last_step_of_dpm_are_ddim(g):
    schedule = scaled_linear()
    x_t = torch.randn(2, 1, 2, 2, generator=g, dtype=torch.float64)
    t = torch.tensor([500, 500])
    prediction = TO_PREDICTION["eps"](raw_output(x_t, t), x_t, t, schedule)
    plain = euler_step(x_t, 500, 300, prediction, schedule)
    torch.testing.assert_close(dpmpp_2m_step(x_t, 500, 300, prediction, schedule), plain, rtol=0, atol=1e-12)
    before = (700, torch.randn(2, 1, 2, 2, generator=g, dtype=torch.float64))
    assert (dpmpp_2m_step(x_t, 500, 300, prediction, schedule, before) - plain).abs().max() > 0.01
    assert torch.equal(dpmpp_2m_step(x_t, 500, 0, prediction, schedule, before), prediction.x0)


@pytest.mark.parametrize("change, says", [
    ({"_class_name": "HeunDiscreteScheduler"}, "unknown scheduler 'HeunDiscreteScheduler'.*DDIM"),
    ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule='squaredcos_cap_v2'"),
    ({"prediction_type": "sample"}, "prediction_type='sample'"),
    ({"timestep_spacing": "linspace"}, "timestep_spacing='linspace'"),
    ({"clip_sample": True}, "clip_sample=True"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ({"solver_order": 3}, "solver_order=3"),
])
def test_what_is_not_implemented_is_refused_by_name(change, says):
    good = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False}
    assert Scheduler.from_config(good).schedule.T == 1000
    with pytest.raises(ValueError, match=says):
        Scheduler.from_config({**good, **change})


def test_every_default_of_ours_is_theirs():
    for name, (method, defaults) in KNOWN.items():
        if method in THEIRS and THEIRS[method][0].__name__ == name:
            config = THEIRS[method][0]().config
            assert {entry: config[entry] for entry in defaults if entry in config} == {
                entry: value for entry, value in defaults.items() if entry in config}
            saved = {**dict(config), **BETAS, "clip_sample": False, "timestep_spacing": "leading"}
            Scheduler.from_config({"_class_name": name, **saved})    # all that they write into a file is known


def test_bad_steps_and_methods_are_refused(g):
    scheduler = Scheduler.from_config({"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False,
                                       "steps_offset": 1})
    for steps in (0, "3", 2.5, None):
        with pytest.raises(ValueError, match="steps must be a whole number from 1 to 1,000, not "):
            scheduler.timesteps(steps)
    with pytest.raises(ValueError, match="take fewer"):
        scheduler.timesteps(1000)
    z = torch.randn(1, 1, 2, 2, generator=g)
    with pytest.raises(ValueError, match="unknown method 'heun'; known are ddim, ddpm, euler, dpm"):
        SamplingLoop(None, z, scheduler.schedule, [10, 0], method="heun")
