"""Networks: backbones, text encoders, blocks by slot, grounding models, built from names in a config."""
