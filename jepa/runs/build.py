"""From a configuration to its parts. Kinds are found by name and imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa.encoders import Identity
from jepa.model import JEPA
from jepa.monitor import Watch
from jepa.runs.config import Config, unknown
from jepa.runs.kinds import make
from jepa.streams import generator_for, number
from jepa.worlds import WORLDS
from jepa.worlds.pairs import NEAR, Pairs, joined, mismatched

ENCODERS = {
    "identity": "jepa.encoders:Identity",
    "mlp": "jepa.encoders:MLP",
    "convolutional": "jepa.encoders:Convolutional",
    "coupling": "jepa.encoders:Coupling",
}
PREDICTORS = {
    "identity": "jepa.predictors:Identity",
    "mlp": "jepa.predictors:MLP",
    "additive": "jepa.predictors:Additive",
}
LATENTS = {
    "none": "jepa.latents.finite:NoLatent",
    "discrete": "jepa.latents.finite:Discrete",
    "vector_quantized": "jepa.latents.quantized:VectorQuantized",
    "finite_scalar": "jepa.latents.quantized:FiniteScalar",
    "low_dimensional": "jepa.latents.low_dimensional:LowDimensional",
    "sparse": "jepa.latents.sparse:Sparse",
    "noisy": "jepa.latents.fuzzy:Noisy",
    "dropped": "jepa.latents.fuzzy:Dropped",
    "gaussian": "jepa.latents.fuzzy:Gaussian",
}
EXPANDERS = {
    "identity": "jepa.encoders:Identity",
    "expander": "jepa.encoders:Expander",
    "random_features": "jepa.encoders:RandomFeatures",
}
CHUNK = 256  # pairs that are drawn or encoded at a time
INFERENCES = {
    "minimize": "",
    "amortized": "jepa.latents.amortized:Amortized",
    "lista": "jepa.latents.lista:Lista",
}


def world(config: Config) -> Any:
    """Return the configured world. Raises: ValueError for a world or an option that does not exist."""
    return make("world", config.world, WORLDS)


def model(config: Config, seed: int) -> JEPA:
    """Return the configured JEPA with weights drawn from `seed`, on the configured device.

    Raises: ValueError for a part or an option that does not exist, or widths that do not fit.
    """
    x, a, y = world(config).widths
    a += told(config, world(config).sample(1, torch.Generator()).factors).shape[1] if config.told else 0
    context = y if config.context == "y" else x
    with torch.random.fork_rng(devices=[]):
        # PyTorch's layers draw their weights from the global generator, here set and put back
        torch.manual_seed(number(config.streams, seed, "weights"))
        encoder_x = make("encoder_x", config.encoder_x, ENCODERS, inputs=context)
        if config.encoder_y.name == "shared":
            if config.encoder_y.options:
                raise unknown("encoder_y: option of 'shared'", next(iter(config.encoder_y.options)), ())
            encoder_y = encoder_x
        else:
            encoder_y = make("encoder_y", config.encoder_y, ENCODERS | {"shared": ""}, inputs=y)
        latent = make("latent", config.latent, LATENTS)
        inference = _inference(config, encoder_x, encoder_y, latent.free or latent.width)
        widths = {"inputs": encoder_x.outputs, "outputs": encoder_y.outputs, "action": a, "latent": latent.width}
        predictor = make("predictor", config.predictor, PREDICTORS, **widths)
        expander_x = make("expander", config.expander, EXPANDERS, inputs=encoder_x.outputs)
        shared = encoder_x is encoder_y
        expander_y = expander_x if shared else make("expander", config.expander, EXPANDERS, inputs=encoder_y.outputs)
    return JEPA(encoder_x, encoder_y, predictor, latent, (expander_x, expander_y), inference).to(config.device)


def source(config: Config, world: Any) -> Callable:
    """Return the source of training pairs: the world's, with what the predictor is told, or (y, y) for an auto-encoder.

    Raises: ValueError for a factor to be told that the world does not have.
    """
    if config.context == "x" and not config.told:
        return world.sample

    def sample(count: int, generator: torch.Generator) -> Any:
        """Return pairs whose context is the target itself, or whose action tells factors."""
        pairs = world.sample(count, generator)
        x = pairs.y if config.context == "y" else pairs.x
        return pairs._replace(x=x, a=torch.cat([pairs.a, told(config, pairs.factors)], 1))

    return sample


def told(config: Config, factors: Mapping[str, Tensor]) -> Tensor:
    """Return what the predictor is told of the factors, [B, A], of width 0 where that is nothing.

    Raises: ValueError for a factor that does not exist.
    """
    for name in config.told:
        if name not in factors:
            raise unknown("told", name, factors)
    first = next(iter(factors.values()))
    empty = first.new_zeros(len(first), 0, dtype=torch.get_default_dtype())
    return torch.cat([empty, *(factors[name].to(empty) for name in config.told)], 1)


def watch(config: Config, world: Any, model: JEPA) -> Watch:
    """Return who watches the training of an untrained model: on pairs of its kind, for what the world can tell of them.

    The pairs are the same for all seeds.
    """
    generator = generator_for(config.streams, 0, "watched pairs", config.device)
    pairs = joined(list(portions(source(config, world), config.train.watched, generator)))
    names = [name for name, label in world.factor_labels.items() if label == "predictable"]
    targets = torch.cat([pairs.factors[name].to(pairs.y) for name in names], 1)
    plausible = mismatched(world, pairs.factors) <= NEAR**2 if hasattr(world, "oracle") else None
    return Watch(model, pairs, targets, plausible)


def head(model: JEPA) -> JEPA:
    """Return what is behind the encoders as a JEPA of its own, on representations; the weights are shared."""
    expanders = (model.expander_x, model.expander_y)
    return JEPA(nn.Identity(), nn.Identity(), model.predictor, model.latent, expanders, model.inference)


def portions(sample: Callable, count: int, generator: torch.Generator) -> Iterator[Pairs]:
    """Return `count` pairs, a few hundred at a time: faster than all at once, whose memory no cache holds."""
    return (sample(min(CHUNK, count - first), generator) for first in range(0, count, CHUNK))


def pool(x: Tensor, y: Tensor, a: Tensor | None = None) -> Callable:
    """Return a source of pairs that are drawn with replacement from given ones, x [N, …], y [N, …], a [N, A]."""
    a = x.new_zeros(len(x), 0) if a is None else a

    def draw(count: int, generator: torch.Generator) -> Pairs:
        """Return pairs of the pool."""
        rows = torch.randint(len(x), (count,), generator=generator, device=x.device)
        return Pairs(x[rows], a[rows], y[rows], {})

    return draw


def _inference(config: Config, encoder_x: nn.Module, encoder_y: nn.Module, width: int) -> nn.Module | None:
    """Return the network that infers z, of `width` numbers, or None where z is found by minimizing."""
    if config.inference.name == "minimize":
        if config.inference.options:
            raise unknown("inference: option of 'minimize'", next(iter(config.inference.options)), ())
        return None
    target = encoder_y.inputs if isinstance(encoder_y, Identity) else encoder_y.outputs
    return make("inference", config.inference, INFERENCES, context=encoder_x.outputs, target=target, outputs=width)
