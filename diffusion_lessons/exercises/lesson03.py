"""Exercises of lesson 03: predicting the noise."""

import math

import numpy as np
import torch

from diffusion_lessons import forward, training
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, as_numbers
from diffusion_lessons.exercises.inputs import factor
from diffusion_lessons.forward import add_noise, velocity
from diffusion_lessons.models.unet import time_embedding


def roots(s, t):
    """sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t), ready to multiply."""
    a = factor(s.alpha_bar, t)
    return a.sqrt(), (1 - a).sqrt()


def sample_estimate(g, k):
    s, shape = inputs.schedule(g), inputs.shape(g, k)
    return inputs.noise(g, shape), inputs.picture(g, shape), inputs.times(g, s.T, shape[0], k), s


def estimate(formula):
    """formula(x_t, eps, signal, noise) as an answer."""
    return lambda eps, x_t, t, s: formula(x_t, eps, *roots(s, t))


def estimate_at(shift):
    return lambda eps, x_t, t, s: estimate(lambda x, e, a, n: (x - n * e) / a)(eps, x_t, t + shift, s)


def x0_from_eps(eps, x_t, t, schedule):
    alpha_bar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


X0_HAT = Exercise(
    "3.1", "x0_from_eps(eps, x_t, t, schedule)", sample_estimate, estimate_at(0),
    reference=x0_from_eps, shows=[forward.from_eps, forward.alpha_sigma],
    praise="right: the jump, solved for x0.",
    hints=["Write down the jump: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. Solve it for x0.",
           "First subtract the noise, then undo the scaling.",
           "(x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), with alpha_bar as (B, 1, 1, 1)."],
    mistakes=[
        (estimate(lambda x, e, a, n: x - n * e),
         "the noise is gone, but the picture is still scaled down: divide by sqrt(alpha_bar)."),
        (estimate(lambda x, e, a, n: x - e),
         "you subtracted eps unscaled; in x_t it is multiplied by sqrt(1 - alpha_bar)."),
        (estimate(lambda x, e, a, n: (x - e) / a),
         "multiply eps by sqrt(1 - alpha_bar) before you subtract it."),
        (estimate(lambda x, e, a, n: x / a - n * e),
         "divide the whole difference: put brackets around x_t - sqrt(1 - alpha_bar) eps."),
        (estimate(lambda x, e, a, n: (x - n**2 * e) / a**2),
         "you used alpha_bar and 1 - alpha_bar instead of their square roots."),
        (estimate(lambda x, e, a, n: (x - n * e) / a**2),
         "you divided by alpha_bar instead of its square root."),
        (estimate(lambda x, e, a, n: (x - n**2 * e) / a),
         "the noise is multiplied by 1 - alpha_bar instead of its square root."),
        (estimate(lambda x, e, a, n: (x - n * e) * a),
         "you multiplied by sqrt(alpha_bar); to undo the scaling, divide."),
        (estimate(lambda x, e, a, n: (x + n * e) / a),
         "the noise is added again; subtract it."),
        (estimate(lambda x, e, a, n: (x - a * e) / n), "the two factors are swapped."),
        (estimate_at(-1), "t is off by one: you took alpha_bar[t - 1]."),
        (estimate_at(1), "t is off by one: you took alpha_bar[t + 1]."),
    ])


def sample_loss(g, k):
    """The weights of a small network first; t in 1..T."""
    s, shape = inputs.schedule(g), inputs.shape(g, k)
    weights = 0.3 * torch.randn(9 * shape[1] ** 2 + 1, generator=g)
    return weights, inputs.picture(g, shape), inputs.times(g, s.T, shape[0], k, first=1), inputs.noise(g, shape), s


def of_a_network(loss, weights, x0, t, eps, schedule):
    """The loss, followed by its gradients with respect to the weights of a small network that depends on x and t."""
    weights = weights.clone().requires_grad_()
    kernel = weights[1:].reshape(x0.shape[1], x0.shape[1], 3, 3)

    def net(x, t, y=None):
        seen = torch.tanh(torch.nn.functional.conv2d(x, kernel, padding=1))
        return seen + weights[0] * torch.sin(t.float()).reshape(-1, 1, 1, 1)

    value = loss(net, x0, t, eps, schedule)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return value
    gradients = torch.autograd.grad(value.sum(), weights)[0]
    return torch.cat([value.detach().reshape(-1), gradients])


def eps_loss(net, x0, t, eps, s):
    return Denoiser(net, s, prediction_type="eps").loss(x0, t, eps, weighting="eps").mean()


def error(measure, sees=forward.add_noise, wants=lambda x0, x_t, eps: eps):
    """A training loss with a different measure, input or target."""
    def loss(net, x0, t, eps, s):
        x_t = sees(x0, t, eps, s)
        return measure(net(x_t, t) - wants(x0, x_t, eps))
    return loss


def mean_square(d):
    return d.square().mean()


def without_t(net, x0, t, eps, s):
    return mean_square(net(forward.add_noise(x0, t, eps, s), torch.zeros_like(t)) - eps)


def training_loss(net, x0, t, eps, schedule):
    eps_hat = net(add_noise(x0, t, eps, schedule), t)
    return ((eps_hat - eps) ** 2).mean()


LOSS = Exercise(
    "3.2", "training_loss(net, x0, t, eps, schedule)", sample_loss, eps_loss,
    reference=training_loss, may_call=(add_noise,), shows=[Denoiser.loss, training.Trainer.train_step],
    remark="In the package the loss also covers other prediction types and weightings; with "
           "prediction_type = weighting = \"eps\" it is the exercise.",
    praise="right. Repeat that on random pictures with random t, and you are training.",
    use=of_a_network, trains=True,
    hints=["Three lines: make x_t with add_noise, call the network, compare.",
           "eps_hat = net(x_t, t): the network sees the noisy picture and the time, nothing else.",
           "((eps_hat - eps) ** 2).mean()"],
    mistakes=[
        (error(mean_square, sees=lambda x0, t, eps, s: x0),
         "the network was shown the clean picture x0. It must only ever see x_t, or it learns nothing that is "
         "of use in sampling."),
        (error(mean_square, sees=lambda x0, t, eps, s: eps),
         "the network was shown the noise itself. It should see x_t."),
        (error(mean_square, wants=lambda x0, x_t, eps: x0),
         "the network's output is compared with x0. Here it predicts the noise: compare with eps."),
        (error(mean_square, wants=lambda x0, x_t, eps: x_t),
         "the network's output is compared with x_t; compare it with eps."),
        (without_t, "the network was not given t, but always 0."),
        (error(lambda d: d.square().sum()),
         "you took the sum; take the mean, or the loss depends on the size of the batch."),
        (error(lambda d: d.square().flatten(1).sum(1).mean()),
         "you took the sum over the pixels; take the mean over them too, or the loss depends on the size of the "
         "pictures."),
        (error(lambda d: d.abs().mean()), "that is the mean absolute error; the squared error is wanted."),
        (error(lambda d: d.mean()), "the errors are not squared, so positive and negative ones cancel."),
        (error(lambda d: d.mean().square()),
         "you squared the mean; take the mean of the squares, or errors cancel."),
        (error(lambda d: d.square().mean().sqrt()),
         "that is the square root of the mean squared error; drop the root."),
        (error(lambda d: d.square().flatten(1).mean(1)),
         "that is one loss per picture; take the mean over the batch too."),
        (error(lambda d: d.square()), "that is the squared error of every pixel; take the mean of them all."),
        (error(lambda d: -d.square().mean()), "the sign is flipped: training would make the error larger."),
        (error(mean_square, sees=lambda x0, t, eps, s: forward.add_noise(x0, t - 1, eps, s)),
         "x_t was made with t - 1, but the network was given t."),
    ])


TARGETS = (lambda x0, eps, signal, noise: eps, lambda x0, eps, signal, noise: x0,
           lambda x0, eps, signal, noise: signal * eps - noise * x0)


def sample_stranger(g, k):
    """A network that knows one picture almost by heart and predicts eps, x0 or v, in turn; and that picture."""
    s, (_, *shape), form = inputs.schedule(g), inputs.shape(g, k), TARGETS[k % 3]
    x0 = inputs.picture(g, (1, *shape))

    def net(x_t, t):
        x_t = inputs.as_a_network(x_t, t)
        if t.min() < 1:
            raise ValueError("at t = 0 there is no noise: this network was trained with t in 1..T")
        signal, noise = roots(s, t)
        eps = (x_t - signal * x0) / noise
        return form(x0, eps, signal, noise) + 0.2 * torch.sin(40 * x_t)

    return net, x0.expand(8, *shape).clone(), s


def by_error(choose, sees=forward.add_noise):
    """The experiment with a different choice or input."""
    def target_of(net, x0, s):
        t = torch.linspace(1, s.T, len(x0)).long()
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        put_out = net(sees(x0, t, eps, s), t)
        return choose([(put_out - form(x0, eps, *roots(s, t))).square().mean().item() for form in TARGETS])
    return target_of


def target_of(net, x0, schedule):
    t = torch.randint(1, schedule.T + 1, (len(x0),))
    eps = torch.randn_like(x0)
    put_out = net(add_noise(x0, t, eps, schedule), t)
    targets = torch.stack([eps, x0, velocity(x0, eps, t, schedule)])
    return (put_out - targets).square().mean((1, 2, 3, 4)).argmin()


TARGET = Exercise(
    "3.6", "target_of(net, x0, schedule)", sample_stranger, by_error(lambda errors: errors.index(min(errors))),
    reference=target_of, may_call=(add_noise, velocity), integers=True,
    praise="right. A network's file does not always say what it was trained to predict, and a wrong guess gives "
           "mush: so test it on something you know the answer to.",
    hints=["Noise the pictures yourself, with noise and times of your own: then you know eps, x0 and v. What does the "
           "network return?",
           "t = torch.randint(1, schedule.T + 1, (len(x0),)), eps = torch.randn_like(x0), and x_t by add_noise.",
           "Of the mean squared errors to eps, to x0 and to velocity(x0, eps, t, schedule), which is the smallest?"],
    mistakes=[
        (lambda net, x0, s: 0, "this one does not always predict the noise: compare its output with all three."),
        (lambda net, x0, s: 1, "this one does not always predict x0: compare its output with all three."),
        (lambda net, x0, s: 2, "this one does not always predict v: compare its output with all three."),
        (by_error(lambda errors: errors.index(max(errors))), "that is the one with the largest error: argmin."),
        (by_error(min), "that is the smallest error. Return which one it is: 0 for eps, 1 for x0, 2 for v."),
        (by_error(lambda errors: errors), "those are the errors. Which is the smallest? 0 for eps, 1 for x0, 2 for v."),
    ])


def sample_embedding(g, k):
    T, count = inputs.one(g, 100, 900), 1 if k % 3 == 1 else inputs.one(g, 5, 7)
    t = torch.randperm(T, generator=g)[:count] + 1
    t[-1] = T
    return t, 2 * inputs.one(g, 8, 12), T            # wider than the batch, so that the axes cannot be confused


def rates_of(width):
    return torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))


def angles_of(t, width, T):
    return (1000 / T * t.float())[:, None] * rates_of(width)


def embed(arrange, angles=angles_of):
    return lambda t, width, T: arrange(angles(t, width, T))


def usual(a):
    return torch.cat([a.sin(), a.cos()], 1)


def alternate_rows(a):
    """The bug of a public course: sin and cos alternate over the batch, not over the features."""
    out = torch.cat([a, a], 1)
    out[0::2], out[1::2] = out[0::2].sin(), out[1::2].cos()
    return out


def by_place(t, width, T):
    """The same bug in another form: the angle grows with the position in the batch, and t is ignored."""
    return torch.arange(len(t)).float()[:, None] * rates_of(width)


def time_features(t, width, T):
    k = torch.arange(width // 2)
    rates = 10000.0 ** (-k / (width // 2))
    angles = (1000 / T * t.float())[:, None] * rates                         # (B, width // 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


TIME = Exercise(
    "3.3", "time_features(t, width, T)", sample_embedding, time_embedding,
    reference=time_features, shows=[time_embedding], tolerance=1e-3,
    praise="right: every t gets its own row, and nearby times have similar rows.",
    hints=["rates: width // 2 numbers from 1 falling to almost 1/10000: torch.exp(-math.log(10000) * k / "
           "(width // 2)) with k = torch.arange(width // 2).",
           "angles: each time multiplied by each rate, (B, 1) * (1, width // 2) -> (B, width // 2). Scale "
           "the time by 1000 / T.",
           "torch.cat([angles.sin(), angles.cos()], dim=1)"],
    mistakes=[
        (embed(alternate_rows),
         "wrong axis: sin and cos alternate from picture to picture of the batch. Each picture needs both: "
         "sin in the first half of its row, cos in the second."),
        (embed(usual, by_place),
         "wrong axis: the angle depends on the position in the batch, not on the time. Multiply t[:, None] by the "
         "rates."),
        (embed(lambda a: torch.cat([a.sin(), a.cos()], 0)),
         "wrong axis: sin and cos are joined along the batch. Join them along the features, dim=1."),
        (embed(lambda a: usual(a).T), "the axes are swapped: one row per picture, (B, width)."),
        (embed(lambda a: torch.stack([a.sin(), a.cos()], 2).flatten(1)),
         "sin and cos alternate in your row. A network could use that as well; ours has all sines first, "
         "then all cosines."),
        (embed(lambda a: torch.cat([a.cos(), a.sin()], 1)),
         "cos comes before sin; ours is the other way round."),
        (embed(usual, lambda t, w, T: t.float()[:, None] * rates_of(w)),
         "the time is not scaled: multiply t by 1000 / T, so that the embedding means the same for every T."),
        (embed(usual, lambda t, w, T: t.float()[:, None] / T * rates_of(w)),
         "the time is t / T; it should be 1000 t / T, or all angles are so small that nearby times look "
         "alike."),
        (embed(lambda a: torch.cat([a.sin(), a.sin()], 1)),
         "both halves are sines; the second should be cosines."),
        (embed(lambda a: a.sin()), "only the sines are there: append the cosines of the same angles."),
        (embed(usual, lambda t, w, T: (1000 / T * t.float())[:, None] / rates_of(w)),
         "you divided by the rates: the angles should become smaller along the row, not larger."),
        (embed(usual, lambda t, w, T: (1000 / T * t.float())[:, None]
               * torch.exp(-math.log(10000) * torch.arange(w // 2) / (w // 2 - 1))),
         "you divided by width // 2 - 1. Many programs do; here it is width // 2, as in the formula."),
    ])


def sample_losses(g, k):
    """Losses of pictures at many t, some in every stretch, and a T that divides into equal stretches."""
    parts, each = inputs.one(g, 4, 6), inputs.one(g, 5, 9)
    T = parts * each
    t = torch.cat([torch.arange(1, T + 1), torch.randint(1, T + 1, (40,), generator=g)])
    t = t[torch.randperm(len(t), generator=g)]
    return torch.rand(len(t), generator=g) + t / T, t, T, parts


def by_part(part_of, statistic=torch.mean):
    """An answer that assigns t to stretch part_of(t, T, parts)."""
    def by_t(loss, t, T, parts):
        part = part_of(t, T, parts)
        return torch.stack([statistic(loss[part == k]) for k in range(parts)])
    return by_t


def evenly(t, T, parts):
    return (t - 1) * parts // T


def loss_by_t(loss, t, T, parts):
    part = (t - 1) * parts // T                                              # 1..T -> 0..parts - 1
    return torch.stack([loss[part == k].mean() for k in range(parts)])


BY_T = Exercise(
    "3.5", "loss_by_t(loss, t, T, parts)", sample_losses, by_part(evenly), reference=loss_by_t,
    praise="right: printed during training, such a table shows at which noise levels the network is still learning.",
    hints=["Number the stretches 0 to parts - 1. Which one does t belong to?",
           "t = 1 belongs to the first and t = T to the last: (t - 1) * parts // T.",
           "torch.stack([loss[part == k].mean() for k in range(parts)])"],
    mistakes=[
        (by_part(lambda t, T, parts: t * parts // T),
         "t = T is in no stretch (and each border in the wrong one): the times are 1..T, so take t - 1."),
        (by_part(lambda t, T, parts: (t * parts // T).clamp(max=parts - 1)),
         "t = T is caught, but the other borders are still one off: the times are 1..T, so take t - 1."),
        (by_part(evenly, torch.sum), "those are sums; take the mean, or a stretch with many pictures looks worse."),
        (by_part(evenly, torch.median), "those are medians; the training minimises the mean."),
        (lambda loss, t, T, parts: by_part(evenly)(loss, t, T, parts).flip(0), "the order is reversed: small t "
         "comes first."),
        (lambda loss, t, T, parts: torch.stack([part.mean() for part in loss.tensor_split(parts)]),
         "you cut the batch into stretches in the order of its pictures; t says which stretch a loss belongs to."),
        (lambda loss, t, T, parts: torch.stack([part.mean() for part in loss[t.argsort()].tensor_split(parts)]),
         "you cut the sorted losses into parts of equal size; the stretches are equally long in t, however many "
         "pictures each contains."),
        (lambda loss, t, T, parts: torch.stack([(loss * (evenly(t, T, parts) == k)).mean() for k in range(parts)]),
         "you divided by the size of the whole batch; divide by the number of pictures in the stretch."),
        (lambda loss, t, T, parts: loss.mean().expand(parts), "that is one mean over all t, repeated."),
    ])


def sample_rows(g, k):
    t, width, T = sample_embedding(g, k)
    return torch.cat([t, t[:1 + k % 3]]), width, T   # some times occur again, at other positions in the batch


def woven(fill):
    """The lesson's code with a different way to fill the rows: fill(rows), in place."""
    def rows_of(t, width, T):
        rates = 10000.0 ** (-2 * (torch.arange(width) // 2) / width)
        rows = (1000 / T * t.float())[:, None] * rates[None, :]
        fill(rows)
        return rows
    return rows_of


def fill_rows(rows):
    rows[0::2], rows[1::2] = rows[0::2].sin(), rows[1::2].cos()


def fill_columns(rows):
    rows[:, 0::2], rows[:, 1::2] = rows[:, 0::2].sin(), rows[:, 1::2].cos()


def cosine_first(rows):
    rows[:, 1::2], rows[:, 0::2] = rows[:, 1::2].sin(), rows[:, 0::2].cos()


def same_columns(result, expected):
    """Whether these are the same columns in any order: for a network any order will do."""
    result, expected = as_numbers(result), as_numbers(expected)
    if result.shape != expected.shape:
        return False
    left = list(result.T)
    for column in expected.T:
        found = [k for k, other in enumerate(left) if np.abs(other - column).max() < 1e-3]
        if not found:
            return False
        del left[found[0]]
    return True


def fill_half(rows):
    rows[:, 0::2] = rows[:, 0::2].sin()
    rows[1::2] = rows[1::2].cos()


def fill_sines(rows):
    rows.sin_()


def fill_halves(rows):
    half = rows.shape[1] // 2
    rows[:, :half], rows[:, half:] = rows[:, :half].sin(), rows[:, half:].cos()


def fixed_rows(t, width, T):
    k = torch.arange(width)
    rates = 10000.0 ** (-2 * (k // 2) / width)
    rows = (1000 / T * t.float())[:, None] * rates[None, :]
    rows[:, 0::2] = rows[:, 0::2].sin()
    rows[:, 1::2] = rows[:, 1::2].cos()
    return rows


FIXED = Exercise(
    "3.4", "fixed_rows(t, width, T)", sample_rows, woven(fill_columns), reference=fixed_rows,
    alternatives=(woven(cosine_first), time_embedding), same=same_columns,
    remark="The package's function joins all sines and all cosines instead of interleaving them. To a network it "
           "makes no difference.",
    praise="fixed: the same t gets the same row, at any position in the batch.",
    hints=["The eight rows should be equal, because t is. Along which axis do sin and cos alternate?",
           "rows[0::2] is every second row. Every second column is rows[:, 0::2]."],
    mistakes=[
        (woven(fill_rows), STILL_BROKEN),
        (woven(fill_half), "one of the two lines is fixed; the other still goes by rows."),
        (woven(fill_sines), "now there are only sines: every second column should be a cosine."),
        (woven(fill_halves),
         "the columns come in pairs with the same rate, one for sin and one for cos. In halves, the sines get only "
         "the fast rates and the cosines only the slow ones."),
        (lambda t, width, T: woven(fill_rows)(t, width, T)[:1].expand(len(t), -1),
         "now every picture has the row of the first, whatever its t."),
        (lambda t, width, T: woven(fill_rows)(torch.arange(width), len(t), T).T,
         "the axes are swapped: one row per picture, (B, width)."),
    ])

EXERCISES = [X0_HAT, LOSS, TIME, FIXED, BY_T, TARGET]
