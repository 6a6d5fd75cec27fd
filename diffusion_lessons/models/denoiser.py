"""A network, a noise schedule and what the network's output means: together they are a denoiser."""

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

        The errors of the three targets differ only by factors of t: err_x0 / noise = err_v = err_eps / signal with
        signal = sqrt(alpha_bar_t), noise = sqrt(1 - alpha_bar_t). So "which error counts" (weighting) is a choice apart
        from "what the network puts out" (target): weighting "eps" is the loss of Ho et al. 2020, eq. 14, whatever the target.
        The factor is cut at 100.
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
