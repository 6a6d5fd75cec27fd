"""Networks: the U-Net that denoises, the transformer that reads, GANs, and the judges."""
