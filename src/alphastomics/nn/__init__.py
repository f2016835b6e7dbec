"""Network parts: attention, embeddings, block. Knows no diffusion."""
