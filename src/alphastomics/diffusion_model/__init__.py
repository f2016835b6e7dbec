"""The diffusion model on tensors: levels, masks, losses, sampler. Knows no AnnData."""

from alphastomics.diffusion_model.module import Denoised, MaskedDiffusionModule

__all__ = ["Denoised", "MaskedDiffusionModule"]
