"""Resumable training of denoisers, GANs and classifiers, and the recipes of the shipped weights."""

from diffusion_lessons.training.base import BaseTrainer, load_checkpoint, run, save_checkpoint
from diffusion_lessons.training.diffusion import Trainer, TrainStep

__all__ = ["BaseTrainer", "Trainer", "TrainStep", "load_checkpoint", "run", "save_checkpoint"]
