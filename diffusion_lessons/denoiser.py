"""A network, a noise schedule and what the network's output means: together they are a denoiser."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffusion_lessons.condition import AnyCondition
from diffusion_lessons.forward import TO_PREDICTION, Prediction, add_noise, alpha_sigma, factors, velocity
from diffusion_lessons.schedules import Schedule

# A denoiser that takes a condition: (x_t, t, condition or None) -> Prediction
ConditionalDenoiser: TypeAlias = Callable[[Tensor, Tensor, AnyCondition], Prediction]
MAX_WEIGHT = 100.0  # no time may count more than this, or the extreme times drown out all others


class Denoiser(nn.Module):
    """Turns the raw output of a network into a Prediction (eps, x0), in float32 at every t.

    Samplers and lessons speak of eps. What the network itself predicts ("eps", "x0" or "v") is a separate choice:
    ours is v, from which both eps and x0 follow without a division.

    net: callable (x_t, t, condition) -> output like x_t, where x_t is (B, C, H, W), t (B,) in 1..T, and the condition
    whatever this network accepts, or None
    """

    def __init__(self, net: nn.Module, schedule: Schedule, prediction_type: str = "v") -> None:
        super().__init__()
        if prediction_type not in TO_PREDICTION:
            raise ValueError(f"unknown prediction_type {prediction_type!r}; known are {', '.join(TO_PREDICTION)}")
        self.net, self.schedule, self.prediction_type = net, schedule, prediction_type

    def forward(self, x_t: Tensor, t: Tensor, condition: AnyCondition = None) -> Prediction:
        return TO_PREDICTION[self.prediction_type](self.net(x_t, t, condition).float(), x_t, t, self.schedule)

    def loss(self, x0: Tensor, t: Tensor, eps: Tensor, condition: AnyCondition = None, *, weighting: str = "v",
             generator: torch.Generator | None = None, model: ConditionalDenoiser | None = None) -> Tensor:
        """The squared error of the network's output for each picture, weighted over t.  -> (B,)

        The errors in eps, x0 and v differ only by factors of t: err_v = err_x0 / noise = err_eps / signal with
        signal = sqrt(alpha_bar_t), noise = sqrt(1 - alpha_bar_t). So the error that counts (weighting) is chosen apart
        from the network's output (prediction_type): weighting "eps" is the loss of Ho et al. 2020, eq. 14, whatever
        the output. The factor between the two is clamped to 100.

        generator: for losses that draw random numbers; this one draws none
        model: what to call in place of this denoiser, for instance the same one wrapped by DistributedDataParallel or
        torch.compile; it is called as model(x_t, t, condition) and in no other way
        """
        if weighting not in TO_PREDICTION:
            raise ValueError(f"unknown weighting {weighting!r}; known are {', '.join(TO_PREDICTION)}")
        hat = (self if model is None else model)(add_noise(x0, t, eps, self.schedule), t, condition)
        error = (self._output(hat.x0, hat.eps, t) - self._output(x0, eps, t)).square().flatten(1).mean(1)    # (B,)
        signal, noise = (f.flatten() for f in alpha_sigma(t, self.schedule, x0))                             # (B,)
        in_v = {"eps": 1 / signal, "x0": 1 / noise, "v": torch.ones_like(signal)}    # an error of 1, measured in v
        return error * (in_v[self.prediction_type] / in_v[weighting]).square().clamp(max=MAX_WEIGHT)

    def _output(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should output if x0 and eps were behind x_t."""
        if self.prediction_type == "v":
            return velocity(x0, eps, t, self.schedule)
        return eps if self.prediction_type == "eps" else x0


class OneStepDenoiser(Denoiser):
    """Learns only the noise of the last step, from t - 1 to t: the approach that the video warns against.

    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) e;   given all the noise eps, e is known up to chance:
    e | eps ~ N(k eps, 1 - k^2),   k = sqrt(beta_t / (1 - alpha_bar_t)).   So e_hat = k eps_hat, and as a denoiser it
    returns eps_hat = e_hat / k, which multiplies every error of e_hat by 1 / k.
    """

    def correlation(self, t: Tensor, like: Tensor) -> Tensor:
        """k, the correlation of the last step's noise with all the noise in x_t.  (B,) -> (B, 1, 1, 1)"""
        _, noise, beta = factors(t, self.schedule, like)
        return (beta.sqrt() / noise).clamp(max=1)

    def step_noise(self, x_t: Tensor, t: Tensor, condition: AnyCondition = None) -> Tensor:
        """The estimate of the last step's noise, e_hat.  -> (B, C, H, W)"""
        return self.correlation(t, x_t) * self(x_t, t, condition).eps

    def reverse_step(self, x_t: Tensor, t: Tensor, condition: AnyCondition = None) -> Tensor:
        """x_{t-1} as in the approach above: remove the noise of one step, and no more."""
        _, _, beta = factors(t, self.schedule, x_t)
        return (x_t - beta.sqrt() * self.step_noise(x_t, t, condition)) / (1 - beta).sqrt()

    def loss(self, x0: Tensor, t: Tensor, eps: Tensor, condition: AnyCondition = None, *, weighting: str = "v",
             generator: torch.Generator | None = None, model: ConditionalDenoiser | None = None) -> Tensor:
        """The squared error of e_hat; the random part of e is drawn here, and nobody can predict it.  -> (B,)

        generator: draws it, on the device of eps;  model: as in Denoiser.loss;  weighting has no effect
        """
        k = self.correlation(t, x0)
        e = k * eps + (1 - k**2).sqrt() * torch.randn(eps.shape, generator=generator, device=eps.device)
        hat = (self if model is None else model)(add_noise(x0, t, eps, self.schedule), t, condition)
        return (k * hat.eps - e).square().flatten(1).mean(1)
