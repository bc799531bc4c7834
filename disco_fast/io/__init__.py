"""Image files: decoders and encoders with bounds, collections, and files that appear whole."""
