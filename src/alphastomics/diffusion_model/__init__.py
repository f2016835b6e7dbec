"""The diffusion model on tensors: network, heads, masks, losses, draws. Knows no AnnData."""

from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule

__all__ = ["Encoding", "MaskedDiffusionModule"]
