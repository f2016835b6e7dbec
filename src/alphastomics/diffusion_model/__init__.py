"""The diffusion model on tensors: levels, masks, losses, sampler. Knows no AnnData."""

from alphastomics.diffusion_model.interface import Denoised
from alphastomics.diffusion_model.module import MaskedDiffusionModule

__all__ = ["Denoised", "MaskedDiffusionModule"]
