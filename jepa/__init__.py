"""Joint Embedding Predictive Architectures: one energy, three minimizations.

Inference minimizes the energy over the latent z, planning over actions, learning over weights. Modules stand on floors
and import only from floors below; everything public is reached by its module, `from jepa.model import JEPA`, so that
importing the package itself costs nothing.
"""

__version__ = "0.1.0"
