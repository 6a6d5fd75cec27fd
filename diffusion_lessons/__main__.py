"""python -m diffusion_lessons: the same as the command `diffusion-lessons`."""

import sys

from diffusion_lessons.cli import main

if __name__ == "__main__":
    sys.exit(main())
