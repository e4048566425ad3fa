"""Text encoders and the bank of token embeddings."""
