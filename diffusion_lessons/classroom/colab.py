"""The first cell of every notebook: it says how to get the package where it is missing, as on a fresh Colab."""

FIRST_CELL = '''\
try:
    import diffusion_lessons
except ImportError:
    raise SystemExit(
        "The package of this course is not installed here.\\n"
        "On your own machine: run `make lab` in the folder of the course.\\n"
        "On Colab: run  %pip install git+ADDRESS  in a cell of its own, where ADDRESS is the web address\\n"
        "of the repository this notebook comes from; then run this cell again."
    ) from None
'''
