"""Measures of trained models and of their results. They know tensors and callables, never a model class."""
