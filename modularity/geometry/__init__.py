"""The geometry of activations: arrays in, arrays out. Import from the modules; this package re-exports nothing."""
