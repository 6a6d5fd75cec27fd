"""Networks: the U-Net, the text encoder, GANs, an MLP for points, and the classifiers that measure pictures."""
