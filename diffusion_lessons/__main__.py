"""The commands `diffusion-lessons` and `python -m diffusion_lessons` begin here.

Nothing is imported before `main` runs, so that Ctrl-C is one line even while the command line itself is loaded.
"""


def main() -> int:
    """Run the command line.  -> its exit code, 130 after Ctrl-C"""
    try:
        from diffusion_lessons import cli

        return cli.main()
    except KeyboardInterrupt:
        import sys

        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
