"""Geometry of a model: arrays in, arrays or tables out, without model, store or ray. Import from the modules."""
