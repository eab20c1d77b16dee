"""Latent space separation (LSS) of an ensemble: the margin, the latents, and what is kept of them."""
