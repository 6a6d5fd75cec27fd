"""Two solvers beside DDIM: Euler, which is DDIM in other coordinates, and DPM-Solver++ (2M), which needs fewer steps.

All three follow the same curve from noise to picture, the probability flow ODE (Song et al. 2021, section 4.3).
"""

import math

from torch import Tensor

from diffusion_lessons.forward import Prediction
from diffusion_lessons.schedules import Schedule


def euler_step(x_t: Tensor, t: int, s: int, prediction: Prediction, schedule: Schedule) -> Tensor:
    """From x_t to x_s by one straight step along the noise, in coordinates where the picture does not shrink.

    x_s / sqrt(ab_s) = x_t / sqrt(ab_t) + (sigma_s - sigma_t) eps_hat,   sigma = sqrt((1 - ab) / ab)
                                                  (Karras et al. 2022, algorithm 2; Song et al. 2021, DDIM, eq. 13)

    Sort the terms by x0_hat and eps_hat, and this is `ddim_step` with eta = 0, to the last digit but rounding.
    """
    ab_t, ab_s = schedule.floats[t], schedule.floats[s]
    sigma_t, sigma_s = ((1 - ab_t) / ab_t) ** 0.5, ((1 - ab_s) / ab_s) ** 0.5
    return ab_s**0.5 * (x_t / ab_t**0.5 + (sigma_s - sigma_t) * prediction.eps)


def dpmpp_2m_step(x_t: Tensor, t: int, s: int, prediction: Prediction, schedule: Schedule,
                  previous: tuple[int, Tensor] | None = None) -> Tensor:
    """From x_t to x_s by a line through the last two x0_hat, where DDIM takes the last one to stay as it is.

    x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D,   D = x0_hat + h / (2 h_before) (x0_hat - x0_hat_before)
    alpha = sqrt(ab),  sigma = sqrt(1 - ab),  lambda = log(alpha / sigma),  h = lambda_s - lambda_t
                                                                        (Lu et al. 2022b, algorithm 2 and eq. 13)

    previous: (t, x0_hat) of the step before. Without one, and in the step to s = 0, where h is infinite, D is x0_hat
    alone, and the step is DDIM's.
    """
    alpha_s, sigma_s = schedule.floats[s] ** 0.5, (1 - schedule.floats[s]) ** 0.5
    sigma_t, lam = (1 - schedule.floats[t]) ** 0.5, schedule.log_snr / 2
    h, D = (lam[s] - lam[t]).item(), prediction.x0
    if previous is not None and s > 0:
        t_before, x0_before = previous
        D = D + h / (2 * (lam[t] - lam[t_before]).item()) * (D - x0_before)
    return sigma_s / sigma_t * x_t - alpha_s * math.expm1(-h) * D
