"""Networks: the U-Net that denoises and the classifier that judges."""
