"""Latent variables z: R(z), samples of exp(−R), bits, and how z is inferred (LeCun 2022, section 4.5)."""

LATENTS = {  # name -> where it is, imported when it is made
    "none": "jepa.latents.finite:NoLatent",
    "discrete": "jepa.latents.finite:Discrete",
    "vector_quantized": "jepa.latents.quantized:VectorQuantized",
    "finite_scalar": "jepa.latents.quantized:FiniteScalar",
    "low_dimensional": "jepa.latents.continuous:LowDimensional",
    "sparse": "jepa.latents.sparse:Sparse",
    "noisy": "jepa.latents.stochastic:Noisy",
    "dropped": "jepa.latents.stochastic:Dropped",
    "gaussian": "jepa.latents.stochastic:Gaussian",
}
NETWORKS = {  # that propose z
    "amortized": "jepa.latents.amortized:Amortized",
    "lista": "jepa.latents.lista:Lista",
}
