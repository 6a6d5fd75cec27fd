"""Classifier-free guidance: ask twice, with and without the label or sentence, and exaggerate the difference."""

from diffusion_lessons.forward import Prediction, from_x0


class Guided:
    """A denoiser steered towards a label or a sentence.

    eps = eps_u + w (eps_c - eps_u)                                         (Ho & Salimans 2022, with w = 1 + their w)

    w = 0 ignores what was asked, w = 1 is plain conditioning (one pass), more exaggerates it. x0 is combined alike,
    which is the same thing, as eps and x0 hang together linearly. Called with (x_t, t), it is itself a denoiser.
    Above 1, w is what `diffusers` calls guidance_scale. At 1 and below, its Stable Diffusion pipeline does not guide
    at all: it asks once, with the sentence, whatever the scale.

    denoiser: callable (x_t, t, y) -> Prediction where y = None means "nothing asked"
    y: (B,) labels, (B, L) tokens, or whatever else the denoiser understands;  w: a number >= 0
    negative: as y, asked in place of nothing: steers away from it
    interval: (low, high): guide where low <= t <= high, with w = 1 elsewhere           (Kynkaanniemi et al. 2024)
    rescale: 0..1, how far the spread of each x0_hat is brought back to that of the plain one (Lin et al. 2023,
    section 3.4, here on x0); it needs a denoiser that has a schedule
    """

    def __init__(self, denoiser, y, w=1.0, *, negative=None, interval=None, rescale=0.0):
        if not w >= 0:
            raise ValueError(f"the guidance scale w must be 0 or more, not {w}")
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in 0..1, not {rescale}")
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"interval must be (low, high) with low <= high, not {interval}")
        self.denoiser, self.y, self.w = denoiser, y, w
        self.negative, self.interval, self.rescale = negative, interval, rescale

    def __call__(self, x_t, t):
        w = self.w if self.interval is None or self.interval[0] <= int(t[0]) <= self.interval[1] else 1
        if w == 1:
            return self.denoiser(x_t, t, self.y)
        if w == 0:
            return self.denoiser(x_t, t, self.negative)
        asked = self.denoiser(x_t, t, self.y)
        other = self.denoiser(x_t, t, self.negative)
        guided = Prediction(*(u + w * (c - u) for u, c in zip(other, asked, strict=True)))
        if self.rescale == 0:
            return guided
        spread, wanted = (x0.flatten(1).std(1).reshape(-1, *[1] * (x_t.ndim - 1)) for x0 in (guided.x0, asked.x0))
        factor = 1 + self.rescale * (wanted / spread.clamp(min=1e-6) - 1)    # (B, 1, 1, 1)
        return from_x0(factor * guided.x0, x_t, t, self.denoiser.schedule)
