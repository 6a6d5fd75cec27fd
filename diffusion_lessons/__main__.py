"""python -m diffusion_lessons: the same as the command `diffusion-lessons`."""

import sys

if __name__ == "__main__":
    try:
        from diffusion_lessons.cli import main

        code = main()
    except KeyboardInterrupt:    # while all this is being imported
        print("\nstopped", file=sys.stderr)
        code = 130
    sys.exit(code)
