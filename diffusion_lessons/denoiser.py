"""A network, a noise schedule and what the network's output means: together they are a denoiser."""

import torch
from torch import nn

from diffusion_lessons.forward import READ_AS, signal_and_noise, velocity

MAX_WEIGHT = 100.0  # no time may count more than this, or the extreme times drown all others


class Denoiser(nn.Module):
    """Turns the raw output of a network into a Prediction (eps, x0), in float32 at every t.

    Samplers and lessons speak of eps. What the network regresses inside ("eps", "x0" or "v") is a choice of ours:
    v, from which both eps and x0 follow without a division.

    net: callable (x_t, t, y) -> output like x_t;  called with x_t (B, C, H, W), t (B,) in 1..T, y (B,) or None
    """

    def __init__(self, net, schedule, target="v"):
        super().__init__()
        if target not in READ_AS:
            raise ValueError(f"unknown target {target!r}; known are {', '.join(READ_AS)}")
        self.net, self.schedule, self.target = net, schedule, target

    def forward(self, x_t, t, y=None):
        return READ_AS[self.target](self.net(x_t, t, y).float(), x_t, t, self.schedule)

    def loss(self, x0, x_t, t, eps, y=None, weighting="v"):
        """The squared error of the raw output at each picture, weighted over t.  -> (B,)

        The errors of the three targets differ only by factors of t: err_v = err_x0 / noise = err_eps / signal with
        signal = sqrt(alpha_bar_t), noise = sqrt(1 - alpha_bar_t). So "which error counts" (weighting) is a choice
        apart from "what the network puts out" (target): weighting "eps" is the loss of Ho et al. 2020, eq. 14,
        whatever the target. The factor is cut at 100.
        """
        wanted = {"eps": eps, "x0": x0, "v": velocity(x0, eps, t, self.schedule)}[self.target]
        error = (self.net(x_t, t, y).float() - wanted).square().flatten(1).mean(1)          # (B,)
        signal, noise = (f.flatten() for f in signal_and_noise(t, self.schedule, x0))       # (B,) each
        to_v = {"eps": 1 / signal, "x0": 1 / noise, "v": 1.0}       # error in the target's unit -> error in v
        from_v = {"eps": signal, "x0": noise, "v": 1.0}
        if weighting not in from_v:
            raise ValueError(f"unknown weighting {weighting!r}; known are {', '.join(from_v)}")
        if weighting == self.target:
            return error
        return error * ((to_v[self.target] * from_v[weighting]) ** 2).clamp(max=MAX_WEIGHT)


class StepDenoiser(Denoiser):
    """Learns only the noise of the last step, t - 1 to t: the road that the video warns of.

    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) e;   given all the noise, e is known up to chance:
    e | eps ~ N(k eps, 1 - k^2),   k = sqrt(beta_t / (1 - alpha_bar_t)).   So e_hat = k eps_hat and back: called as
    a denoiser it says eps_hat = e_hat / k, with every error of e_hat multiplied by 1 / k.
    """

    def share(self, t, like):
        """k of above: how much of the noise in x_t came with the last step.  (B,) -> (B, 1, 1, 1)"""
        return (self.beta(t, like).sqrt() / signal_and_noise(t, self.schedule, like)[1]).clamp(max=1)

    def beta(self, t, like):
        """beta_t, ready to multiply pictures.  (B,) -> (B, 1, 1, 1)"""
        return self.schedule.beta[t.cpu()].reshape(-1, *[1] * (like.ndim - 1)).to(like)

    def step_noise(self, x_t, t, y=None):
        """The guess at the noise of the last step, e_hat.  -> (B, C, H, W)"""
        return self.share(t, x_t) * self(x_t, t, y).eps

    def one_step_back(self, x_t, t, y=None):
        """x_{t-1} as the video would have it: take away the noise of one step, and no more."""
        beta = self.beta(t, x_t)
        return (x_t - beta.sqrt() * self.step_noise(x_t, t, y)) / (1 - beta).sqrt()

    def loss(self, x0, x_t, t, eps, y=None, weighting="v"):
        """The squared error of the guess at e; the random part of e is drawn here, and cannot be guessed.  -> (B,)"""
        k = self.share(t, x_t)
        chance = torch.Generator(x_t.device).manual_seed(int(eps.flatten()[0].item() * 2**30) % 2**31)
        e = k * eps + (1 - k**2).sqrt() * torch.randn(eps.shape, generator=chance, device=eps.device)
        return (self.step_noise(x_t, t, y) - e).square().flatten(1).mean(1)
