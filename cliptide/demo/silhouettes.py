"""The garments' shapes."""

from cliptide.demo.garments.accessories import build_accessories
from cliptide.demo.garments.clothes import build_clothes
from cliptide.demo.garments.headwear_and_footwear import build_headwear_and_footwear
from cliptide.demo.silhouette import Silhouette


def build_silhouettes() -> dict[str, Silhouette]:
    """Every garment's silhouette, by the garment's name."""
    return {**build_clothes(), **build_headwear_and_footwear(), **build_accessories()}
