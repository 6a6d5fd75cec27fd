"""What is right is worked out here: by the package, by its files of measured results, or by its trained networks.

Each fact says which choice it makes the right one, by words that stand in no other; a measurement that comes out
otherwise names another choice, or none. After these words come numbers that the question's text or replies must quote.
"""

import json
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lessons import training, weights
from diffusion_lessons.datasets import captions, critters, rabbit, ring, toy
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.exercises.questions import QUESTIONS
from diffusion_lessons.forward import Prediction, add_noise, forward_step, from_eps, from_v, from_x0, velocity
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.models.gan import PointDiscriminator, PointGenerator, slerp
from diffusion_lessons.models.mlp import ToyMLP
from diffusion_lessons.models.stable_diffusion.layers import Attention
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import Tokenizer, train_bpe
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.models.text import CrossAttention
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.pipelines.latent import LatentPipeline
from diffusion_lessons.samplers import PerSampleNoise, SamplerSettings, SamplingLoop, ddim_step, run, sample, timesteps
from diffusion_lessons.schedules import Schedule, cosine, from_betas, linear
from diffusion_lessons.training import latent, recipes
from diffusion_lessons.training.gan import generator_loss

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
FACTS = {}


def fact(id):
    def keep(work):
        FACTS[id] = work
        return work
    return keep


def verify(question, words, *quoted):
    """The words stand in the right choice and in no other, and what is quoted stands somewhere in the question."""
    assert [choice for choice in question.replies if words in choice] == [question.right], words
    everything = " ".join([question.text, *question.replies, *question.replies.values()])
    assert [number for number in quoted if str(number) not in everything] == []


@pytest.mark.parametrize("id", QUESTIONS)
def test_the_right_answer_is_what_comes_out(id):
    outcome = FACTS[id]()
    outcome = (outcome,) if isinstance(outcome, str) else outcome
    verify(QUESTIONS[id], *outcome)
    for wrong in set(QUESTIONS[id].replies) - {QUESTIONS[id].right}:
        with pytest.raises(AssertionError):
            verify(replace(QUESTIONS[id], right=wrong), *outcome)


def test_each_question_has_a_fact():
    assert FACTS.keys() == QUESTIONS.keys()


# ---------------------------------------------------------------- what several facts need

COSINE = cosine(1000)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(t, x):
    return torch.full((len(x),), t)


def curve(name):
    return json.loads((weights.FOLDER / "curves" / f"{name}.json").read_text())


def last(name, label, metric, way="loop"):
    """The figure of each seed at the longest budget."""
    return [one["points"][-1][way][metric] for one in curve(name)["runs"] if one["label"] == label]


def mean(values):
    return sum(values) / len(values)


def guided_at(w):
    found = curve("guidance")
    return found["points"][found["w"].index(w)]


@cache
def load(name):
    return weights.load_model(name)


@cache
def untrained():
    """Stable Diffusion as lesson 07 has it, with random weights: for what follows from how it is built."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(train_bpe(["a rabbit", "someone blue"], 30), length=latent.TOKENS)
    parts = TextEncoder(**latent.text_config(tokenizer)), UNet(**latent.UNET_CONFIG), VAE(**latent.VAE_CONFIG)
    scheduler = Scheduler.from_config(latent.SCHEDULER_CONFIG)
    return LatentPipeline(tokenizer, *(part.eval().requires_grad_(False) for part in parts), scheduler)


@cache
def prompts():
    return text_to_image.tokenizer(weights.card("critters"))


@cache
def fakes(count=300):
    """Digits of the healthy GAN, for want of real ones without a download."""
    return load("gan_healthy")(noise(count, 64))


class Spy:
    """A denoiser that notes the conditions it is called with: it predicts c with one and u without."""

    def __init__(self, c=1.0, u=0.0):
        self.c, self.u, self.seen = c, u, []

    def __call__(self, x_t, t, condition):
        self.seen.append(condition)
        value = torch.full_like(x_t, self.u if condition is None else self.c)
        return Prediction(value, value)


def guided(w, **how):
    """-> (the guided prediction, the conditions of the calls that it took)"""
    spy = Spy()
    return CFGDenoiser(spy, "the prompt", w, **how)(noise(1, 2), torch.tensor([500])).eps.mean().item(), spy.seen


@cache
def once_and_looped(t):
    """Squared errors of the best denoiser's one prediction and of its loop, for points of the ring noised to t."""
    known, x0 = IdealDenoiser(ring(1000, seed=1), COSINE), ring(1000, seed=2)
    x_t = add_noise(x0, at(t, x0), noise(1000, 2), COSINE)
    times = [t, *[s for s in timesteps(1000, 50) if s < t]]
    looped = run(SamplingLoop(known, x_t, COSINE, times, method="ddpm", noise=PerSampleNoise(0, 1000)))
    return (known(x_t, at(t, x0)).x0 - x0).square().mean().item(), (looped - x0).square().mean().item()


@cache
def three_runs(method):
    """How far three runs from one and the same noise end apart."""
    start = noise(1, 2).expand(3, 2)
    known = IdealDenoiser(ring(100), COSINE)
    return run(sample(known, start, COSINE, 20, method=method, noise=PerSampleNoise(0, 3))).std(0).max().item()


# ---------------------------------------------------------------- lesson 00


@fact("0.q1")
def _():
    start = PerSampleNoise(0, 4)((3, 32, 32))
    size = (weights.FOLDER / "critters.safetensors").stat().st_size / 2**20
    parameters = sum(p.numel() for p in load("critters").parameters())
    assert abs(start.std() - 1) < 0.05
    words = f"removes that noise in {SamplerSettings().steps} steps"
    return words, f"{size:.1f} MiB", f"{parameters / 1e6:.1f} million"


@fact("0.q2")
def _():
    same = torch.equal(PerSampleNoise(0, 4)((3, 8, 8)), PerSampleNoise(0, 4)((3, 8, 8)))
    assert SamplerSettings().method == "ddim"
    return "The same pictures twice" if same and three_runs("ddim") < 1e-5 else "Different pictures each time"


@fact("0.q3")
def _():
    known = IdealDenoiser(ring(100), COSINE)
    steps = list(sample(known, noise(3, 2), COSINE, 10))
    estimate = steps[4].x0_hat
    prediction = known(steps[4].x_t, at(steps[4].t, estimate))
    assert not torch.allclose(estimate, prediction.eps)
    return "The input of the next step" if torch.allclose(estimate, steps[5].x_t) else (
        "expects the finished picture" if torch.allclose(estimate, prediction.x0) else "The noise that the network")


@fact("0.q4")
def _():
    digits = load("digits")
    before, times = [p.clone() for p in digits.parameters()], []
    hook = digits.net.register_forward_pre_hook(lambda net, inputs: times.append(inputs[1].item()))
    run(sample(digits, noise(1, 1, 28, 28), COSINE, 5))
    hook.remove()
    learns = any(not torch.equal(a, b) for a, b in zip(before, digits.parameters()))
    return "One, which learns" if learns else "One, which is told" if times == timesteps(1000, 5)[:-1] else "Fifty"


@fact("0.q5")
def _():
    scenes = critters.sample_scenes(20_000, seed=5)
    frog, stilts = scenes.subject == critters.SUBJECTS.index("frog"), scenes.prop == critters.PROPS.index("stilts")
    assert {"frog", "stilts"} <= set(weights.card("critters")["vocab"])
    share, frogs = weights.card("critters")["figures"]["frogs_on_stilts"], frog.float().mean().item()
    together = (frog & stilts).any()
    words = "Frogs are rare" if frogs < 0.05 else "none" if together else "no frog ever stood on stilts"
    return words, f"{frogs:.0%}", f"{share['all']:.0%}", share["count"]


@fact("0.q6")
def _():
    text = (NOTEBOOKS / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert "150_000, A100" in text
    assert "675 * 24, A100" in text
    ratio = 675 * 24 / 150_000
    assert abs(675 * 24 * 2.13 - 35_000) < 1000
    return "about a tenth" if 0.08 < ratio < 0.12 else "Any network", f"{675 * 24:,}", "35,000"


# ---------------------------------------------------------------- lesson 01


@fact("1.q1")
def _():
    late, with_noise = (metrics.mean_pairwise_distance(load(name)(noise(256, 64))) for name in
                        ("gan_no_noise", "gan_healthy"))
    assert (late, with_noise) == (pytest.approx(0.015, abs=0.002), pytest.approx(0.72, abs=0.02))    # as z varies
    return ("Nearly all the same" if late < 0.1 * with_noise else "different digits"), "0.015", "0.72"


@fact("1.q2")
def _():
    def best(distance):
        """The share of fakes from N(distance, 1) that the best D against real points from N(0, 1) gets right."""
        return 0.5 * (1 + math.erf(distance / 2 / 2**0.5))

    return "G has become good" if best(0) == 0.5 and best(4) > 0.95 else "D has learned nothing"


@fact("1.q3")
def _():
    one, other = noise(5), noise(5, seed=1)
    together = generator_loss(torch.cat([one, other]))
    each = torch.stack([generator_loss(logit[None]) for logit in torch.cat([one, other])])
    healthy, collapsed = recipes.POINT_GANS["healthy"], recipes.POINT_GANS["collapsed"]
    assert recipes.replace(collapsed, r1=healthy.r1) == healthy                   # but for the penalty
    return "scores each fake on its own" if torch.isclose(together, each.mean()) else "none"


@fact("1.q4")
def _():
    names = {"healthy": "gradient penalty", "learning rates / 4": "Smaller learning rates",
             "D slower (/ 10)": "learns ten times more slowly", "minibatch_std": "Minibatch standard deviation"}
    covered = {}
    for one in curve("gan_ring")["runs"]:
        covered.setdefault(one["label"], []).append(mean(one["covered_every_100_steps"][-10:]))
    saved = [words for name, words in names.items() if min(covered[name]) >= 7]
    quoted = [f"{low:.1f} to {high:.1f}" for low, high in ((min(covered[name]), max(covered[name])) for name in
                                                           list(names)[1:])]
    return saved[0], *quoted, f"{min(covered['healthy']):.1f}"


@fact("1.q5")
def _():
    torch.manual_seed(0)
    points = PointGenerator()(noise(1000, 16)).detach()
    unskilled = generator_loss(PointDiscriminator()(points)).item()
    draw = generator_loss(torch.zeros(1000)).item()                             # the best outcome
    covered = metrics.modes(points, toy.ring_centres(), toy.RING_SIGMA).covered
    alike = abs(unskilled - draw) < 0.1 and covered == 0
    return "The losses do not tell" if alike else "A: a lower loss", f"{draw:.2f}"


@fact("1.q6")
def _():
    x = load("gan_collapsed")(noise(500, 64)[:, :4])
    shares = metrics.class_shares(load("digits_classifier"), x)
    ones = x[metrics.predict(load("digits_classifier"), x).argmax(1) == shares.argmax()]
    sure = (metrics.predict(load("digits_classifier"), ones).softmax(1).max(1).values > 0.9).float().mean()
    assert shares.max().item() == pytest.approx(0.64, abs=0.05)                 # as z varies
    return "Nobody can tell" if shares.max() > 0.5 and sure > 0.3 else "a classifier recognises", "64%"


@fact("1.q7")
def _():
    a, b = noise(2, 200, 64, seed=5)
    healthy, real = load("gan_healthy"), weights.load("digits_real")[0]["test"]
    looked_at = {"ends": healthy(a), "as good as either": healthy(slerp(a, b, 0.5)),
                 "average of the two": (healthy(a) + healthy(b)) / 2}
    far = {name: metrics.report(load("digits_classifier"), x, None, real)["frechet"] for name, x in looked_at.items()}
    assert far["average of the two"] > 5 * far["ends"]
    return "as good as either" if far["as good as either"] < 3 * far["ends"] else "Static"


@fact("1.q8")
def _():
    targets = fakes()
    answers = {"Nearly the mean": targets.mean(0, keepdim=True).expand_as(targets), "Sharp digits": targets.roll(1, 0),
               "different blurred digit": (targets.roll(1, 0) + targets.roll(2, 0) + targets.roll(3, 0)) / 3,
               "Noise, because": noise(*targets.shape)}
    return min(answers, key=lambda name: (answers[name] - targets).square().mean())


# ---------------------------------------------------------------- lesson 02


@fact("2.q1")
def _():
    shades = torch.tensor([-1.0, 0, 1]).reshape(1, 1, 1, 3)
    after = forward_step(shades, 1000, torch.zeros_like(shades), linear(1000))
    black, grey, white = after.flatten().tolist()
    assert after.shape == shades.shape
    return "move towards 0" if black > -1 and grey == 0 and white < 1 else "It gets darker" if white < 1 else "Nothing"


@fact("2.q2")
def _():
    schedule, picture, variance = linear(1000), 1.0, 0.0
    for beta in schedule.beta[1:501].tolist():
        picture, variance = (1 - beta) ** 0.5 * picture, (1 - beta) * variance + beta
    share = schedule.alpha_bar[500].item()
    same = math.isclose(picture, share**0.5) and math.isclose(variance, 1 - share)
    return "one formula" if same else "In a loop"


@fact("2.q3")
def _():
    quarter = Schedule("", torch.tensor([1, 0.25], dtype=torch.float64))
    one, none, t = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([1])
    picture, eps = add_noise(one, t, none, quarter).item(), add_noise(none, t, one, quarter).item()
    return f"{picture:.1f} times the picture plus {eps:.2f} times"


@fact("2.q4")
def _():
    x0, g = rabbit(64)[None], torch.Generator().manual_seed(0)
    x0 = (x0 - x0.mean()) / x0.std()
    x = x0
    for _ in range(1000):
        x = x + 0.01**0.5 * torch.randn(x.shape, generator=g)
    correlation = torch.corrcoef(torch.stack([x.flatten(), x0.flatten()]))[0, 1]
    there = "still in there" if correlation > 0.2 else "gone"
    return f"A variance of {x.var():.0f}, and the rabbit is {there}", f"{correlation:.1f}"


@fact("2.q5")
def _():
    schedule = linear(1000)
    values = {"beta_t grows": schedule.beta[1:], "alpha_bar_t falls": schedule.alpha_bar, "log-SNR":
              schedule.log_snr[1:]}
    bent = {name: v.diff().diff().abs().max() / v.diff().abs().max() for name, v in values.items()}
    assert schedule.beta[1:].diff().min() > 0
    return min(bent, key=bent.get) if min(bent.values()) < 1e-6 else "none", (schedule.alpha_bar > 0.5).sum().item()


@fact("2.q6")
def _():
    left = {T: linear(T, rescale=False).alpha_bar[-1].item() for T in (1000, 100, 50)}
    assert left[1000] < 1e-4
    return f"{left[100]:.0%} of the picture's variance", f"{left[50]:.0%} at T = 50"


@fact("2.q7")
def _():
    a, b = linear(1000).alpha_bar[500].item(), cosine(1000).alpha_bar[500].item()
    return "differ a lot" if abs(a - b) > 0.1 else "half way is half way", f"{a:.0%}", f"{b:.0%}"


@fact("2.q8")
def _():
    released = from_betas("", torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2)
    noon = rabbit(64)

    def told_apart(schedule):
        """How often the mean of x_T tells the rabbit from a darker one."""
        a = schedule.alpha_bar[-1].item()
        gap = a**0.5 * (noon.mean() - (0.6 * noon - 0.4).mean()).abs().item()
        return 0.5 * (1 + math.erf(gap / 2 / ((1 - a) / noon.numel()) ** 0.5 / 2**0.5))

    shares = [told_apart(one) for one in (released, COSINE)]
    return "A trace" if shares[0] > 0.9 > 0.6 > shares[1] else "Nothing at all", f"{shares[0]:.0%}"


@fact("2.q9")
def _():
    x0 = rabbit(64)[None]

    def seen_at(t, x):
        x_t = add_noise(x, at(t, x), noise(*x.shape), linear(1000))
        return torch.corrcoef(torch.stack([x_t.flatten(), x.flatten()]))[0, 1]

    bytes_at_T, ours_at_T = seen_at(1000, (x0 + 1) * 127.5), seen_at(1000, x0)
    return "noise is too weak" if bytes_at_T > 0.2 > 0.05 > ours_at_T else "gone too early"


# ---------------------------------------------------------------- lesson 03


@fact("3.q1")
def _():
    seen = []

    def net(*inputs):
        seen.extend(inputs)
        return torch.zeros_like(inputs[0])

    x0, eps, t = noise(2, 1, 8, 8), noise(2, 1, 8, 8, seed=1), torch.tensor([100, 700])
    wrapped = Denoiser(torch.nn.Module(), COSINE, "eps")
    wrapped.net.forward = net
    wrapped.loss(x0, t, eps)
    x_t = add_noise(x0, t, eps, COSINE)
    alone = len(seen) == 3 and torch.equal(seen[0], x_t) and torch.equal(seen[1], t) and seen[2] is None
    return "One noisy picture" if alone else "the clean one"


@fact("3.q2")
def _():
    x0, t = noise(4, 1, 8, 8), torch.full((4,), 500)
    eps, e = noise(4, 1, 8, 8, seed=1), noise(4, 1, 8, 8, seed=2)

    def loss_of_answering(answer):
        denoiser = Denoiser(torch.nn.Module(), COSINE, "eps")
        denoiser.net.forward = lambda x_t, t, condition: answer
        return denoiser.loss(x0, t, eps, weighting="eps").mean().item()

    earlier = add_noise(x0, t - 1, eps, COSINE)
    answers = {"All the noise": eps, "x_(t-1)": earlier, "the last step added": e}
    losses = {words: loss_of_answering(answer) for words, answer in answers.items()}
    return min(losses, key=losses.get) if min(losses.values()) < 1e-6 else "none"


@fact("3.q3")
def _():
    denoiser, times = Denoiser(ToyMLP(), COSINE), []
    denoiser.net.register_forward_pre_hook(lambda net, inputs: times.append(inputs[1]))
    training.Trainer(denoiser, ring(200), steps=1, batch=8).train_step()
    return "Once, at one random t" if len(times) == 1 and len(times[0].unique()) > 1 else "50 times"


@fact("3.q4")
def _():
    nets = ("targets", "v / v"), ("time_conditioned", "not time-conditioned")
    far = [last(*net, "frechet") for net in nets]
    told, untold = (mean(last(*net, "accuracy")) for net in nets)
    assert max(far[0]) < min(far[1])
    return "only a little worse" if 0 < told - untold < 0.1 else "It cannot work", f"{told:.0%}", f"{untold:.0%}"


@fact("3.q5")
def _():
    pictures, x_T = fakes(100), noise(5, 1, 28, 28)
    estimate = IdealDenoiser(pictures, COSINE)(x_T, at(1000, x_T)).x0            # the best that there is
    to_mean = (estimate - pictures.mean(0)).square().mean()
    to_one = (estimate[:, None] - pictures).square().mean((2, 3, 4)).min()
    return "mean of all possible pictures" if to_mean < 0.01 * to_one else "more training"


@fact("3.q6")
def _():
    share = COSINE.alpha_bar[[50, 300, 600, 950]]

    def errors(spread):
        """Of the best estimate of x0 ~ N(0, spread^2), and of the noise that follows from it."""
        of_picture = spread**2 * (1 - share) / (share * spread**2 + 1 - share)
        return of_picture, share / (1 - share) * of_picture

    of_picture, of_noise = (error.diff() for error in errors(0.5))
    rises, falls = (of_picture > 0).all(), (of_noise < 0).all()
    return ("noise's error falls while" if rises and falls else "Both rise" if rises else "Both fall")


@fact("3.q7")
def _():
    once, looped = once_and_looped(900)
    return "One prediction" if once < 0.8 * looped else "Both the same" if once < 1.25 * looped else "The loop: many"


@fact("3.q8")
def _():
    x0, eps = fakes(10), noise(10, 1, 28, 28)
    error_of_copying = (add_noise(x0, at(1000, x0), eps, COSINE) - eps).square().mean()
    far = mean(last("times", "only t = T", "frechet", "one_shot")), mean(last("targets", "v / v", "frechet"))
    words = "copying the input is enough" if error_of_copying < 1e-6 else "sharp digits"
    return words, *(f"{one:.0f}" for one in far)


@fact("3.q9")
def _():
    x0, eps, off = fakes(1), noise(1, 1, 28, 28), 0.01
    t = at(1000, x0)
    x_T = add_noise(x0, t, eps, COSINE)
    by_eps = (from_eps(eps + off, x_T, t, COSINE).x0 - x0).abs().mean() / off
    by_v = (from_v(velocity(x0, eps, t, COSINE) + off, x_T, t, COSINE).x0 - x0).abs().mean() / off
    return "every error is divided" if by_eps > 1000 * by_v else "so much noise", f"{round(by_eps.item(), -4):,.0f}"


# ---------------------------------------------------------------- lesson 04


def of_steps(method, figure, n):
    found = curve("steps")
    return found[method][figure][found["steps"].index(n)]


@fact("4.q1")
def _():
    one, fifty = (of_steps("ddim", "frechet", n) for n in (1, 50))
    start, pictures = noise(5, 1, 28, 28), fakes(100)
    best = run(sample(IdealDenoiser(pictures, COSINE), start, COSINE, steps=1))
    blurred = metrics.sharpness(best).mean() < 0.7 * metrics.sharpness(pictures).mean()
    black = best.max() < -0.9
    return ("A black picture" if black else "A smear" if blurred else "A sharp digit"), f"{one:.0f}", f"{fifty:.1f}"


@fact("4.q2")
def _():
    x0, eps, t, s = fakes(2), noise(2, 1, 28, 28), 600, 580
    x_t = add_noise(x0, at(t, x0), eps, COSINE)
    x_s = ddim_step(x_t, t, s, Prediction(eps, x0), COSINE, 0.0)
    belongs = torch.allclose(x_s, add_noise(x0, at(s, x0), eps, COSINE), atol=1e-5)
    return "as much noise as belongs" if belongs else "too much noise"


@fact("4.q3")
def _():
    times = timesteps(1000, 10)
    shares = [((1 - COSINE.alpha_bar[s]) / (1 - COSINE.alpha_bar[t])).sqrt().item() for t, s in pairwise(times)]
    assert shares[0] > 0.95
    return "None of it" if shares[-1] == 0 else "One tenth" if shares[-1] < 0.2 else "Nine tenths"


@fact("4.q4")
def _():
    assert three_runs("ddpm") > 0.1
    return "The same picture three times" if three_runs("ddim") < 1e-5 else "Nearly the same picture"


@fact("4.q5")
def _():
    once, looped = once_and_looped(700)
    return "A decision" if 1.5 < looped / once < 2.5 else "A smaller error"


@fact("4.q6")
def _():
    few, many = (of_steps("ddim", "frechet", n) for n in (50, 1000))
    longer = of_steps("ddim", "seconds", 1000) / of_steps("ddim", "seconds", 50)
    assert abs(of_steps("ddim", "frechet", 10) - many) < 0.05
    return ("Hardly anything, and it takes " + f"{longer:.0f} times" if abs(few - many) < 0.05 else
            "clearly better" if many < few else "They get worse"), f"{many:.1f}"


@fact("4.q7")
def _():
    times = timesteps(1000, 30)
    points = run(sample(IdealDenoiser(toy.ring_centres(), COSINE), noise(50, 2), COSINE, 30))
    there = torch.cdist(points, toy.ring_centres()).min(1).values.max() < 0.05
    return ("Yes: from any t" if there else "Only if 1000 can be"), ", ".join(map(str, times[:3])), ", ".join(
        map(str, times[-2:]))


@fact("4.q8")
def _():
    figures = {method: of_steps(method, "frechet", 20) for method in ("ddim", "ddpm")}
    right = min(of_steps(method, "accuracy", 20) for method in figures)
    ahead = all(of_steps("ddpm", "frechet", n) < of_steps("ddim", "frechet", n) for n in curve("steps")["steps"][2:])
    return ("Try both" if figures["ddpm"] < figures["ddim"] and ahead else "Always DDIM"), *(
        f"{far:.1f}" for far in figures.values()), f"{math.floor(100 * right + 0.5)}%"


# ---------------------------------------------------------------- lesson 04b


@fact("4b.q1")
def _():
    short = cosine(50)
    x0, eps, t = noise(3, 1, 4, 4), noise(3, 1, 4, 4, seed=1), torch.tensor([5, 20, 45])

    class Perfect(OneStepDenoiser):
        def forward(self, x_t, t, condition=None):
            return from_x0(x0, x_t, t, self.schedule)

    perfect = Perfect(torch.nn.Module(), short)
    x_t = add_noise(x0, t, eps, short)
    converted = perfect.step_noise(x_t, t) / perfect.correlation(t, x_t)
    alone, everything = last("one_step", "the step alone", "frechet"), last("one_step", "all the noise", "frechet")
    larger = (1 / perfect.correlation(t, x_t)).min() > 1 and min(alone) > max(everything)
    return ("but with larger errors" if torch.allclose(converted, eps, atol=1e-4) and larger else "Yes, it can only"), (
        f"{mean(alone):.0f}"), f"{mean(everything):.0f}"


@fact("4b.q2")
def _():
    x0, t = ring(2000, seed=2), 200
    share = COSINE.alpha_bar[t].item()
    x_t = add_noise(x0, at(t, x0), noise(2000, 2), COSINE)
    variance = x0.var().item()
    knows_covariance = share**0.5 * variance / (share * variance + 1 - share) * x_t       # the best linear filter
    knows_data = IdealDenoiser(ring(2000, seed=1), COSINE)(x_t, at(t, x0)).x0             # held-out points, no loop
    errors = [(x - x0).square().mean().item() for x in (knows_data, knows_covariance)]
    return "knows what digits look like" if errors[0] < 0.8 * errors[1] else "not set up"


@fact("4b.q3")
def _():
    x0, t = toy.ring_centres(), 900
    x_t = add_noise(x0, at(t, x0), noise(8, 2), COSINE)
    likely = IdealDenoiser(x0, COSINE).weights(x_t, at(t, x0))
    as_good = (likely >= likely.diagonal()[:, None] * math.exp(-4)).sum(1) - 1            # besides the true one
    return "does not say which" if as_good.float().mean() > 3 else "a perfect one would find"


@fact("4b.q4")
def _():
    contests = [once_and_looped(t) for t in (100, 700, 900)]
    return "One prediction: here" if all(once < looped for once, looped in contests) else "closer to the original"


@fact("4b.q5")
def _():
    old, new = torch.arange(30) % 10, (torch.arange(30) + 4) % 10
    denoiser, start = load("digits"), PerSampleNoise(11, 30)((1, 28, 28))
    shares = {}
    for k in (4, 6, 10):
        loop = sample(CFGDenoiser(denoiser, old), start, COSINE, steps=20)
        for _ in range(k):
            next(loop)
        loop.denoiser = CFGDenoiser(denoiser, new)
        shares[k] = metrics.accuracy(load("digits_classifier"), run(loop).clamp(-1, 1), new)
    words = "Nearly always the old" if shares[10] < 0.2 else "Nearly always the new" if shares[10] > 0.8 else "Either"
    return words, *(f"{share:.0%}" for share in shares.values())


@fact("4b.q6")
def _():
    runs = {method: [one for one in curve("stability_digits")["runs"] if one["method"] == method]
            for method in ("gan", "diffusion")}
    far = {method: [one["frechet"] for one in found] for method, found in runs.items()}
    times = {method: max(found) / min(found) for method, found in far.items()}
    spread = [torch.tensor([one["frechet"] for one in found if one["factor"] == 1]).std() for found in runs.values()]
    reliable, ahead = times["gan"] > 1.5 * times["diffusion"], min(far["gan"]) < min(far["diffusion"])
    return ("Diffusion is more reliable" if reliable and ahead else "better in every run"), *(
        f"{ratio:.1f} times" for ratio in times.values()), *(f"{min(found):.1f}" for found in far.values()), *(
        f"{one:.1f}" for one in spread)


@fact("4b.q7")
def _():
    pictures = fakes(100)
    made = run(sample(IdealDenoiser(pictures, COSINE), noise(10, 1, 28, 28), COSINE, steps=10))
    _, away = metrics.nearest_neighbours(made, pictures)
    return "Copies of the training" if away.max() < 0.01 else "New digits"


@fact("4b.q8")
def _():
    known, held_out, new = ring(500), ring(200, seed=1), ring(200, seed=2)
    copies = known[:200] + 1e-4 * noise(200, 2)                                  # not exact to the last bit
    away = [torch.cdist(x, known).min(1).values.mean() for x in (copies, new, held_out)]
    varied = torch.pdist(copies).mean() > 0.9 * torch.pdist(held_out).mean()
    found = away[0] < 0.1 * away[2] and 0.5 < away[1] / away[2] < 2
    same = (copies[:, None] == known).all(-1).any()
    return "than held-out pictures do" if found and varied and not same else "Search the training set"


# ---------------------------------------------------------------- lesson 05


@fact("5.q1")
def _():
    without, plain = (guided_at(w)["all_right"] for w in (0, 1))
    return "Most of them" if without < 0.1 and 0.5 < plain < 0.95 else "All of them" if plain >= 0.95 else "Hardly any"


@fact("5.q2")
def _():
    row, text = prompts()("a green frog")[0].tolist(), "a green frog"
    words = [prompts().vocab.index(word) + 3 for word in text.split()]            # 0, 1 and 2: PAD, BOS and EOS
    return "one for each word" if row == [1, *words, 2] + [0] * (len(row) - len(words) - 2) else "Its letters"


@fact("5.q3")
def _():
    net = load("critters").net
    a, b = (net.encode_text(prompts()(text)).hidden_states[0, :7] for text in ("a green frog on stilts",
                                                                               "a green frog on snow"))
    moved = [name for name, far in zip("0123456", (a - b).norm(dim=1)) if far > 1e-4]
    return {"56": "the changed word, and EOS", "5": "the changed word alone"}.get("".join(moved), "All of them")


@fact("5.q4")
def _():
    words = ["frog", "toad", "rabbit", "cat", "owl", "muppet"]
    pooled = load("critters").net.encode_text(prompts()([f"a {word}" for word in words])).pooled
    nearest = words[1 + torch.cdist(pooled[:1], pooled[1:]).argmin().item()]
    numbers = sorted(words, key=lambda word: abs(prompts().vocab.index(word) - prompts().vocab.index("frog")))
    return "their pictures look alike" if nearest == "toad" and numbers[1] != "toad" else "numbers in the vocabulary"


@fact("5.q5")
def _():
    layer = CrossAttention(16, 128)
    q, k, v, _ = layer.queries_keys_values(noise(1, 16, 4, 4), load("critters").net.encode_text(prompts()("a frog")))
    positions, tokens = 16, prompts()("a frog").shape[1]
    asked = q.shape[2], k.shape[2], v.shape[2]
    meant = {(positions, tokens, tokens): "Each position of the picture", (tokens, tokens, tokens): "the other tokens",
             (tokens, positions, positions): "Each token asks the positions"}
    return meant[asked]


@fact("5.q6")
def _():
    rows = prompt_following.sample_rows(prompt_following.combinations(), 40, seed=3)
    real, own = prompt_following.reference_images(rows, seed=3), prompts()(prompt_following.prompts_for(rows, seed=3))
    ratio = {}
    for t in (1000, 500, 100):
        x_t = add_noise(real, at(t, real), PerSampleNoise(3, 40)((3, 32, 32)), COSINE)
        with_it, without = ((load("critters")(x_t, at(t, real), c).x0 - real).square().mean() for c in (own, None))
        ratio[t] = (without / with_it).item()
    places = {1000: "At the start", 500: "Half way", 100: "At the end"}
    return places[max(ratio, key=ratio.get)], "three times" if round(ratio[1000]) == 3 else ratio, (
        f"{100 * (ratio[100] - 1):.0f}%")


@fact("5.q7")
def _():
    scenes = critters.sample_scenes(5000, seed=5)
    written = captions.sample_captions(scenes, seed=5)
    frog = [k for k in range(5000) if critters.SUBJECTS[scenes.subject[k]] == "frog"]
    silent = [k for k in frog if "prop" not in written[k].mentions]
    when_silent, many = mean([float(scenes.prop[k] > 0) for k in silent]), critters.sample_scenes(50_000, seed=6)
    with_prop = (many.prop[many.subject == critters.SUBJECTS.index("frog")] > 0).float().mean()
    mentioned = mean(["prop" in written[k].mentions for k in frog if scenes.prop[k] > 0])
    by_chance = (1 / 3) ** 10 + 10 * (2 / 3) * (1 / 3) ** 9
    assert abs(with_prop - 2 / 3) < 0.05
    assert abs(mentioned - 0.9) < 0.04
    assert by_chance < 1e-3
    return "mostly means no prop" if when_silent < 0.35 else "What the prompt does not name"


@fact("5.q8")
def _():
    seen, never = (weights.card("critters")["figures"][name]["all"] for name in ("seen", "held_out"))
    return ("No: it can only" if never < 0.05 else "as reliably as any" if never > seen - 0.05 else
            f"less reliably: {never:.0%}"), f"{seen:.0%}"


@fact("5.q9")
def _():
    _, conditions = guided(4)
    net, drop, pictures = load("critters").net, 0.15, torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    trainer = training.Trainer(load("critters"), pictures, prompts()(["a frog"] * 64), steps=1, batch=64,
                               cond_drop_prob=drop)
    batches = [trainer.sample_batch(trainer.step_generator(k))[3] for k in range(50)]
    assert abs((torch.cat(batches) == net.null_y).all(1).float().mean() - drop) < 0.03
    return "also predict without a prompt" if None in conditions else "by heart"


# ---------------------------------------------------------------- lesson 06


@fact("6.q1")
def _():
    value, conditions = guided(1)                                                # 1 with the prompt, 0 without
    return "uses the prediction with the prompt" if (value, conditions) == (1, ["the prompt"]) else (
        "It ignores the prompt" if value == 0 else "half and half" if value == 0.5 else "It doubles")


@fact("6.q2")
def _():
    value, conditions = guided(4)
    assert set(conditions) == {"the prompt", None}
    return "past the one with it" if value == 4 else "It averages" if 0 < value < 1 else "It makes the network"


@fact("6.q3")
def _():
    denoiser, x_t = load("critters"), noise(1, 3, 32, 32)
    empty = denoiser.net.null_y[None]
    same = torch.allclose(denoiser(x_t, at(900, x_t), None).eps, denoiser(x_t, at(900, x_t), empty).eps, atol=1e-5)
    assert prompts().decode(empty[0]) == ""
    million = sum(p.numel() for p in denoiser.parameters()) / 1e6
    return "the same network" if same else "a second network", f"{million:.1f} million"


@fact("6.q4")
def _():
    found, plain = curve("guidance")["truth"]["muppet"], guided_at(1)["muppet"]
    low, high = metrics.wilson_interval(plain, curve("guidance")["count"])
    return "Captions lie" if low < found < high else "does not know what a muppet", f"{found:.0%}", f"{plain:.0%}", (
        f"{guided_at(8)['muppet']:.0%}"), f"{guided_at(4)['all_right']:.0%}"


@fact("6.q5")
def _():
    six, sixteen = guided_at(6), guided_at(16)
    gained, burnt = sixteen["all_right"] - six["all_right"], sixteen["saturated"] / six["saturated"]
    assert sixteen["muppet"] < guided_at(8)["muppet"]
    assert sixteen["diversity"] > six["diversity"]
    return ("Nothing that was wanted" if gained < 0.01 and burnt > 1.3 else "more and more closely"), (
        f"{six['all_right']:.0%}"), f"{sixteen['all_right']:.0%}"


@fact("6.q6")
def _():
    passes = {w: len(guided(w)[1]) for w in (1, 2, 4, 16)}
    return {(1, 2, 2, 2): "Twice as many passes", (1, 2, 4, 16): "w times"}.get(tuple(passes.values()), "Nothing")


@fact("6.q7")
def _():
    c, u, s = 0.7, 0.2, 3
    theirs = (1 + s) * c - s * u
    w = (theirs - u) / (c - u)
    ours = CFGDenoiser(Spy(c, u), "the prompt", w)(noise(1, 2), torch.tensor([500])).eps.mean().item()
    assert ours == pytest.approx(theirs, abs=1e-5)
    return f"{w:.0f}"


@fact("6.q8")
def _():
    _, conditions = guided(3, negative="someone green")
    assert "not" not in prompts().vocab
    return "takes the place of the empty prompt" if set(conditions) == {"the prompt", "someone green"} else "none"


# ---------------------------------------------------------------- lesson 07


@fact("7.q1")
def _():
    sd, [x] = untrained(), latent.critter_pictures(0, 1)
    z, local = sd.encode(x), []
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        changed = x.clone()
        changed[..., 48 * i:48 * i + 16, 48 * j:48 * j + 16] *= -1                    # one corner of the picture
        far = F.avg_pool2d((sd.encode(changed) - z).abs(), 8).sum((0, 1))             # (2, 2): of each corner
        local.append(far[i, j] > 0.4 * far.sum())
    again = torch.equal(sd.encode(x), z)
    return ("what is where" if all(local) and again else "A list of facts" if again else "Random numbers"), (
        f"{x.numel():,}"), f"{z.numel():,}", " x ".join(map(str, (*z.shape[2:], z.shape[1])))


@fact("7.q2")
def _():
    vae, other = untrained().vae, VAE(**latent.VAE_CONFIG).requires_grad_(False)
    z, scale = latent.encode_critters(vae, 32, seed=0)
    _, others = latent.encode_critters(other, 32, seed=0)
    assert z.float().std().item() == pytest.approx(1, abs=1e-3)
    assert abs(others / scale - 1) > 0.01
    raw = vae.encode(latent.critter_pictures(0, 32)[0]).mean.std().item()
    assert round((512 * 512 * 3) / (64 * 64 * 4)) == 48
    return ("It was learned" if any("scal" in name for name, _ in vae.named_parameters()) else
            "standard deviation" if scale == pytest.approx(1 / raw, rel=1e-3) else "It was tried out"), "1/48"


@fact("7.q3")
def _():
    [x] = latent.critter_pictures(0, 100)
    patches = F.pixel_unshuffle(x, 4).movedim(1, -1) - x.mean()                       # (100, 16, 16, 48)
    _, _, axes = torch.pca_lowrank(patches.flatten(0, 2), 4, center=False)            # the best linear autoencoder

    def decode(z):
        return F.pixel_shuffle((z @ axes.T).movedim(-1, 1), 4) + x.mean()

    def likeness(x):
        """The correlation of neighbouring blocks of 4 x 4 pixels."""
        small = F.avg_pool2d(x, 4) - x.mean()
        return ((small[..., 1:] * small[..., :-1]).mean() / small.square().mean()).item()

    z = patches @ axes
    there_and_back, made = decode(z), decode(z.std() * noise(*z.shape))
    assert likeness(there_and_back) > 0.5
    assert (there_and_back - x).square().mean() < 0.1 * x.var()
    grey, copies = made.std() < 0.3 * x.std(), torch.cdist(made.flatten(1), x.flatten(1)).min() < 5
    return "An even grey" if grey else "One of the training" if copies else (
        "Confetti" if abs(likeness(made)) < 0.1 else "A new scene")


@fact("7.q4")
def _():
    sd = untrained()
    encoder, unet = (type(part)(**part.config) for part in (sd.text_encoder, sd.unet))
    before = {name: [p.clone() for p in part.parameters()] for name, part in (("text", encoder), ("unet", unet))}
    batches = latent.LatentBatches(noise(4, 4, 16, 16), ["a rabbit"] * 4, sd.tokenizer, drop=0.1)
    trainer = latent.LossTrainer(unet, latent.unet_step(sd.scheduler, encoder), batches, steps=2, batch=2, lr=1e-3)
    list(trainer)
    moved = {name: any(not torch.equal(a, b) for a, b in zip(before[name], part.parameters()))
             for name, part in (("text", encoder), ("unet", unet))}
    assert moved["unet"]
    return "trained along with the U-Net" if moved["text"] else "frozen"


@fact("7.q5")
def _():
    comparisons, work = {}, {}
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        layer, unet = Attention(32, heads=1), UNet(**latent.UNET_CONFIG)
        for side in (16, 64):
            with FlopCounterMode(display=False) as counter:
                layer(torch.empty(1, side**2, 32))
            comparisons[side] = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
            with FlopCounterMode(display=False) as counter:
                unet(torch.empty(1, 4, side, side), torch.empty(1), torch.empty(1, latent.TOKENS, 128))
            work[side] = counter.get_total_flops()
    return f"{comparisons[64] / comparisons[16]:.0f} times as many", f"{work[64] / work[16]:.1f} times"


@fact("7.q6")
def _():
    sd, ran = untrained(), {"unet": 0, "encoder": 0, "decoder": 0}

    def count(name):
        def add(*_):
            ran[name] += 1
        return add

    hooks = [part.register_forward_hook(count(name)) for name, part in (
        ("unet", sd.unet), ("encoder", sd.vae.encoder), ("decoder", sd.vae.decoder))]
    sd("a rabbit", steps=50)
    for hook in hooks:
        hook.remove()
    assert (ran["unet"], ran["encoder"]) == (50, 0)
    return {0: "Never", 1: "Once, when", 50: "50 times", 100: "100 times"}[ran["decoder"]]


@fact("7.q7")
def _():
    sd, seen, w = untrained(), [], 4
    rabbit_, blue = (sd.encode_text(text)[0] for text in ("a rabbit", "someone blue"))
    hook = sd.unet.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[2]))
    x_t, t = noise(1, 4, 16, 16), torch.tensor([500])
    eps = sd.denoiser("a rabbit", w, negative="someone blue")(x_t, t).eps
    alone = {text: sd.denoiser(text, 1)(x_t, t).eps for text in ("a rabbit", "someone blue")}
    hook.remove()
    difference = alone["a rabbit"] - alone["someone blue"]
    assert difference.abs().max() > 1e-3
    by_itself = [torch.equal(seen[0], blue), torch.equal(seen[1], rabbit_)]
    subtracted = torch.allclose(eps, alone["someone blue"] + w * difference, atol=1e-4)
    return "Both texts, each by itself" if by_itself == [True, True] and subtracted else "One text"


@fact("7.q8")
def _():
    sd, [x] = untrained(), latent.critter_pictures(0, 2)
    loops = {s: sd.img2img(x, "a rabbit", s, steps=50) for s in (0.2, 0.8, 1)}
    z = sd.encode(x)
    kept = [F.cosine_similarity(loop.x_t.flatten(), z.flatten(), dim=0).item() for loop in loops.values()]
    gently = sd.img2img(x, "a rabbit", 0.8, steps=50, guidance_scale=1)
    assert kept[0] > kept[1] > kept[2]
    assert kept[2] < 0.1
    assert torch.equal(gently.x_t, loops[0.8].x_t)
    return f"{len(loops[0.8].timesteps) - 1} of the 50 steps are left"
