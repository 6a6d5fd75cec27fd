"""A stand-in for Colab's own package: as much of it as the lessons use."""
