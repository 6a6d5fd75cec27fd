"""Exercises of lesson 01: a generator against a discriminator."""

import functools

import torch
import torch.nn.functional as F

from diffusion_lessons.evaluation import metrics
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, with_gradients
from diffusion_lessons.training import gan


def sample_logits(g, k):
    """Logits of real and fake examples, in different numbers, as mixed as in the middle of a game."""
    n, m = (1, 1) if k % 3 == 1 else (5 + torch.randperm(6, generator=g)[:2]).tolist()
    return 2 * torch.randn(n, generator=g) + 0.5, 2 * torch.randn(m, generator=g) - 0.5


def loss_of_d(real, fake):
    return -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()


LOSS_D = Exercise(
    "1.1", "loss_of_d(real, fake)", sample_logits, gan.discriminator_loss,
    reference=loss_of_d, shows=[gan.discriminator_loss], use=with_gradients, trains=True,
    remark="F.softplus(x) = log(1 + e^x), so softplus(-x) = -log sigmoid(x), without overflow.",
    praise="right: both kinds of mistake are penalised, and each counts the same.",
    hints=["D says \"real\" with probability sigmoid(logit). For a real example that should be large, for a fake one "
           "small.",
           "-log sigmoid(real), and -log(1 - sigmoid(fake)) = -log sigmoid(-fake). The mean of each, added up.",
           "-F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()"],
    mistakes=[
        (lambda r, f: F.softplus(r).mean() + F.softplus(-f).mean(),
         "real and fake are swapped: this D is rewarded for being wrong."),
        (lambda r, f: F.softplus(-r).mean(), "only real examples count here: D could call everything real."),
        (lambda r, f: F.softplus(f).mean(), "only fakes count here: D could call everything fake."),
        (lambda r, f: F.softplus(-r).mean() + F.softplus(-f).mean(),
         "this asks D to call the fake ones real as well: for them it is 1 - sigmoid."),
        (lambda r, f: -F.softplus(-r).mean() - F.softplus(f).mean(),
         "the sign is flipped: a loss falls as D gets better."),
        (lambda r, f: (F.softplus(-r).mean() + F.softplus(f).mean()) / 2,
         "that is half of it: the mean over real and fake together. That works in practice; here the two means are "
         "added, so that a D with no idea has 2 log 2."),
        (lambda r, f: F.softplus(-r).sum() + F.softplus(f).sum(),
         "you took the sum over the batch; take the mean, or the loss depends on its size."),
        (lambda r, f: F.softplus(-r.sigmoid()).mean() + F.softplus(f.sigmoid()).mean(),
         "the sigmoid is applied twice: the loss takes the raw logits."),
        (lambda r, f: -r.sigmoid().mean() + f.sigmoid().mean(), "the logarithm is missing."),
        (lambda r, f: -r.mean() + f.mean(),
         "that is the loss of a Wasserstein GAN, which needs a D that is kept from becoming steep. Here it is "
         "the one with the logarithm of the sigmoid."),
        (lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
         "that is the hinge loss, which is also in use; here it is the logarithm of the sigmoid."),
    ])


def sample_fake(g, k):
    return sample_logits(g, k)[1:]


def loss_of_g(fake):
    return -F.logsigmoid(fake).mean()


LOSS_G = Exercise(
    "1.2", "loss_of_g(fake)", sample_fake, gan.generator_loss, reference=loss_of_g,
    shows=[gan.generator_loss], use=with_gradients, trains=True,
    praise="right, in the form whose gradient is largest where G fails.",
    hints=["G wants D to say \"real\" to its pictures.",
           "It is D's loss for *real* examples, asked about fake ones.",
           "F.softplus(-fake).mean()"],
    mistakes=[
        (lambda f: -F.softplus(f).mean(),
         "that is \"minus D's loss\", log(1 - D(G(z))). It has the same goal, but where D is sure that G's pictures "
         "are fake, which is how it begins, it is flat and G learns nothing. Take -log D(G(z))."),
        (lambda f: F.softplus(f).mean(), "that is what D wants: G would learn to be caught."),
        (lambda f: F.softplus(-f).sum(), "you took the sum over the batch; take the mean."),
        (lambda f: -F.softplus(-f).mean(), "the sign is flipped: a loss falls as G gets better."),
        (lambda f: -f.sigmoid().mean(), "the logarithm is missing."),
        (lambda f: (1 - f.sigmoid()).mean(), "the logarithm is missing."),
        (lambda f: F.softplus(-f.sigmoid()).mean(), "the sigmoid is applied twice: the loss takes the raw logits."),
        (lambda f: -f.mean(), "that is the loss of a Wasserstein GAN; here it is -log sigmoid(fake)."),
        (lambda f: f.mean(), "that pushes D's answer down, and without the logarithm."),
        (lambda f: F.softplus(-f), "that is one loss per picture; take the mean."),
    ])


def sample_points(g, k):
    """Points around some of 8 centres, placed so that each way of counting gives a different number."""
    sigma, more = 0.2 + inputs.one(g, 0, 10) / 100, inputs.one(g, 0, 2)
    centres = 3.0 * torch.cartesian_prod(torch.arange(4), torch.arange(2))[torch.randperm(8, generator=g)]
    # on each centre: how many points, and between which distances, in sigmas
    laid = [(100, 0, 2.9), (30, 0, 2.9), *[(20, 0, 2.9)] * more,       # covered
            (20, 1.2, 2.9),                                            # covered, with no point within 1 sigma
            (6, 0, 2.9), (4, 0, 2.9),                                  # just enough, just too few
            (10, 3.1, 3.5)]                                            # just outside
    parts = []
    for centre, (n, near, far) in zip(centres, laid):
        way = F.normalize(torch.randn(n, 2, generator=g), dim=1)
        parts.append(centre + sigma * (near + (far - near) * torch.rand(n, 1, generator=g)) * way)
    points = torch.cat(parts)
    return points[torch.randperm(len(points), generator=g)], centres, sigma


def counted(on):
    """The number of modes for which on(distances of the points to it, sigma) is true."""
    def count(points, centres, sigma):
        return sum(bool(on(d, sigma)) for d in torch.cdist(points, centres).T)
    return count


def modes_covered(points, centres, sigma):
    share = (torch.cdist(points, centres) <= 3 * sigma).float().mean(0)      # of the points, on each mode
    return (share >= 0.025).sum()


MODES = Exercise(
    "1.3", "modes_covered(points, centres, sigma)", sample_points, lambda *case: metrics.modes(*case).covered,
    reference=modes_covered, shows=[metrics.modes],
    praise="right: neither one good point nor a wild scatter raises this count.",
    hints=["torch.cdist(points, centres) gives all distances, (N, M).",
           "A point is on a mode when its distance is at most 3 sigma; the mean over the points is the share.",
           "(torch.cdist(points, centres) <= 3 * sigma).float().mean(0), and how many of these are >= 0.025?"],
    mistakes=[
        (counted(lambda d, s: (d <= 3 * s).any()),
         "one point is enough for your count. Require at least 2.5% of the points."),
        (counted(lambda d, s: (d <= s).float().mean() >= 0.025),
         "your circle has a radius of 1 sigma. In the plane 61% of a perfect mode lie outside it; use 3."),
        (lambda p, c, s: len(torch.cdist(p, c).argmin(1).unique()),
         "you assigned every point to its nearest mode, however far away. Only those within 3 sigma count."),
        (counted(lambda d, s: (d <= 3 * s).float().mean() >= 0.25), "2.5% is 0.025, not 0.25."),
        (lambda p, c, s: (torch.cdist(p, c) <= 3 * s).any(1).float().mean(),
         "that is the share of points on any mode. You need the number of modes covered."),
        (lambda p, c, s: (torch.cdist(p, c) <= 3 * s).float().mean(0),
         "those are the shares, one for each mode. How many of them reach 0.025?"),
    ])


def sample_pictures(g, k):
    return (inputs.picture(g, (inputs.one(g, 3, 6), *inputs.shape(g, k)[1:])),)


def distances(x):
    return torch.cdist(x.flatten(1), x.flatten(1)) / x[0].numel() ** 0.5       # (N, N), 0 on the diagonal


def variety_of(x):
    rows = x.flatten(1)                                                      # (N, D)
    return torch.pdist(rows).mean() / rows.shape[1] ** 0.5


VARIETY = Exercise(
    "1.4", "variety_of(x)", sample_pictures, metrics.mean_pairwise_distance, reference=variety_of,
    shows=[metrics.mean_pairwise_distance],
    praise="right. Zero means \"the same picture over and over\", and no classifier is needed.",
    hints=["Each picture as one row: x.flatten(1), (N, D).",
           "torch.pdist gives the distance of every pair once. Leave out a picture's distance to itself: that is 0 "
           "and no variety.",
           "torch.pdist(x.flatten(1)).mean() / D ** 0.5"],
    mistakes=[
        (lambda x: distances(x).mean(),
         "the distance of each picture to itself is in your mean, N zeros in N * N numbers. Count pairs of "
         "different pictures only."),
        (lambda x: torch.pdist(x.flatten(1)).mean(),
         "that is the distance between whole pictures. Per pixel: divide by the root of the number of pixels D."),
        (lambda x: torch.pdist(x.flatten(1)).mean() / x[0].numel(),
         "divide by the root of D, not by D: a distance is the root of a sum over the pixels."),
        (lambda x: (torch.pdist(x.flatten(1)) ** 2).mean() / x[0].numel(), "those are squared distances."),
        (lambda x: torch.pdist(x.flatten(1)).sum() / x[0].numel() ** 0.5, "that is the sum over all pairs, not "
         "the mean."),
        (lambda x: x.std(), "that is how much the pixels vary, within a picture too. One striped picture, repeated, "
         "would score well: compare pictures with each other."),
        (lambda x: torch.pdist(x.flatten(1), p=1).mean() / x[0].numel(),
         "that is the mean absolute difference; the distance is the root of the mean square."),
    ])


def sample_generator(g, k):
    """A generator with 4 to 8 noise inputs: one counts only when another is large, one without its sign, some never."""
    n = inputs.one(g, 4, 8)
    plain, gated, even, deaf, *more = torch.randperm(n, generator=g).tolist()
    at = {k: torch.randn(1, 4, 4, generator=g) for k in range(n)}

    def G(z):
        if z.ndim != 2 or z.shape[1] != n:
            raise ValueError(f"this generator takes noise of shape (N, {n}), not {tuple(z.shape)}")
        parts = {plain: z[:, plain].sin(), even: z[:, even].square(),
                 gated: z[:, gated] * (z[:, plain] - 0.5).relu(), **{k: z[:, k].cos() for k in more[1:]}}
        return torch.tanh(sum(part.reshape(-1, 1, 1, 1) * at[k] for k, part in parts.items()))      # (N, 1, 4, 4)

    return G, n


def differs(G, a, b):
    """Whether two batches of noise give different pictures anywhere."""
    return bool((G(a) != G(b)).any())


def by_change(start, change):
    """The experiment with different noise: one column of start(n) at a time becomes change(column)."""
    def heard(G, n):
        z = start(n)
        others = [z.clone() for _ in range(n)]
        for k, other in enumerate(others):
            other[:, k] = change(z[:, k])
        return [differs(G, z, other) for other in others]
    return heard


def seeded(n):
    return 2 * torch.randn(200, n, generator=torch.Generator().manual_seed(0))


def heard(G, n):
    z = torch.randn(200, n)
    before, found = G(z), []
    for k in range(n):
        other = z.clone()
        other[:, k] = torch.randn(200)                                       # the rest is unchanged
        found.append(bool((G(other) != before).any()))
    return found


HEARD = Exercise(
    "1.5", "heard(G, n)", sample_generator, by_change(seeded, lambda column: column.roll(1)), reference=heard,
    praise="right: an experiment with many pieces of noise, one number changed at a time. What it does not hear cannot "
           "make its pictures different.",
    hints=["Make some noise and its pictures. Then change one of the n numbers, and leave the others as they are: do "
           "the pictures change?",
           "One piece of noise is too few: a number may be heard only where another one is large. Take a hundred.",
           "z = torch.randn(200, n); for each k: other = z.clone(), then new numbers into other[:, k], and compare "
           "G(other) with G(z)."],
    mistakes=[
        (by_change(lambda n: torch.zeros(1, n), lambda column: column + 1),
         "you changed the numbers one by one, but from zeros only. One of them is heard only where another is large: "
         "try many random pieces of noise."),
        (by_change(seeded, lambda column: -column),
         "you flipped the signs. A number may count without its sign: take a new number, not minus the old one."),
        (lambda G, n: [not found for found in by_change(seeded, lambda column: column.roll(1))(G, n)],
         "the wrong way round: True means that the pictures change with this number."),
        (lambda G, n: [True] * n, "not all of them are heard. Change one number at a time and look at the pictures."),
        (lambda G, n: sum(by_change(seeded, lambda column: column.roll(1))(G, n)),
         "that is how many are heard. Return a list of n answers: which ones?"),
        (lambda G, n: [k for k, found in enumerate(by_change(seeded, lambda column: column.roll(1))(G, n)) if found],
         "those are the indices. Return n answers, True or False, one for each number."),
    ])


def sample_game(g, k):
    """Real points, noise for both moves, and the weights that G and D begin with."""
    real, z_d, z_g = 1 + torch.randn(8, 2, generator=g), *torch.randn(2, 8, 3, generator=g)
    return torch.randn(8, generator=g), torch.randn(3, generator=g), real, z_d, z_g


def two_rounds(step, start_g, start_d, real, z_d, z_g):
    """How far two rounds of the game move the weights of a small G and a small D."""
    G, D = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)
    torch.nn.utils.vector_to_parameters(start_g.clone(), G.parameters())
    torch.nn.utils.vector_to_parameters(start_d.clone(), D.parameters())
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D))
    for turn in range(2):
        step(G, D, opt_g, opt_d, real, z_d.roll(turn, 0), z_g.roll(turn, 0))
    with torch.no_grad():
        return torch.cat([torch.nn.utils.parameters_to_vector(net.parameters()) - start
                          for net, start in ((G, start_g), (D, start_d))])


def one_round(G, D, opt_g, opt_d, real, z_d, z_g, first="d", second="g", loss_g=gan.generator_loss,
              forget=False):
    """A round of the game. first, second: which optimisers move;  forget: keep the gradients of the round before."""
    movers = {"g": opt_g, "d": opt_d}
    loss = gan.discriminator_loss(D(real), D(G(z_d).detach()))
    opt_d.zero_grad()
    loss.backward()
    for name in first:
        movers[name].step()
    loss = loss_g(D(G(z_g)))
    if not forget:
        opt_g.zero_grad()
    loss.backward()
    for name in second:
        movers[name].step()


def fixed_step(G, D, opt_g, opt_d, real, z_d, z_g):
    loss_d = F.softplus(-D(real)).mean() + F.softplus(D(G(z_d).detach())).mean()
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()

    loss_g = F.softplus(-D(G(z_g))).mean()
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
    return loss_d.item(), loss_g.item()


FIXED = Exercise(
    "1.6", "fixed_step(G, D, opt_g, opt_d, real, z_d, z_g)", sample_game, one_round, use=two_rounds,
    reference=fixed_step,
    praise="fixed: D moves, then G moves, and each by its own loss.",
    hints=["Which weights does the last line but one change? Print some of them before and after.",
           "opt_d.step() moves D, opt_g.step() moves G. Each should move once in a round."],
    mistakes=[
        (functools.partial(one_round, second="d"), STILL_BROKEN),
        (functools.partial(one_round, second="dg"),
         "now G moves, but D still moves a second time, by G's loss: it learns to take fakes for real."),
        (functools.partial(one_round, second=""), "now nothing moves by G's loss: step G's own optimiser."),
        (functools.partial(one_round, first="g", second="d"), "the two optimisers are swapped everywhere."),
        (functools.partial(one_round, first=""), "G moves, but D no longer does."),
        (functools.partial(one_round, forget=True),
         "G's gradients are not set to zero before its step, so those of all earlier rounds add up."),
        (functools.partial(one_round, loss_g=lambda d: F.softplus(d).mean()),
         "G now learns to be caught: its loss should make D say \"real\"."),
        (functools.partial(one_round, loss_g=lambda d: -F.softplus(d).mean()),
         "that is \"minus D's loss\": where D is sure, it is flat and G learns nothing. Take -log D(G(z))."),
    ])

EXERCISES = [LOSS_D, LOSS_G, MODES, VARIETY, HEARD, FIXED]
