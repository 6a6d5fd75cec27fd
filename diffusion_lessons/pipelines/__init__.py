"""From a prompt or a photo to pictures: a trained denoiser, the sampling loop and what goes around them."""
