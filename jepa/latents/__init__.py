"""Latent variables z behind one interface: sample from exp(−R), regularize, infer, bits (LeCun 2022, section 4.5)."""
