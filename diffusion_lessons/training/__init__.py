"""How networks learn: resumable trainings of a denoiser and of a GAN, and the recipes of the course's own weights."""

from diffusion_lessons.training.base import Training, load_checkpoint, run, save_checkpoint
from diffusion_lessons.training.diffusion import Trainer, TrainStep

__all__ = ["Trainer", "TrainStep", "Training", "load_checkpoint", "run", "save_checkpoint"]
