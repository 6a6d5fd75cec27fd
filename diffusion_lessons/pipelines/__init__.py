"""From a prompt or a photo to pictures: what goes around a trained denoiser and the sampling loop."""
