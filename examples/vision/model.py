"""Image classifier: a vision transformer, small by default, 86 M parameters by option.

The size of the image is one number, given to data and model alike; another one is refused with
both shapes. Pre-norm blocks with small initial weights, the mean over all patches, a linear head.
"""

from __future__ import annotations

from typing import Final, cast

from torch import Tensor, nn

from examples.vision.data import CHANNELS
from swipe.errors import ConfigError, MissingError
from train.models.transformer import Encoder

TIMM: Final = "timm:"
SIZES: Final = {
    # patch, width, depth, heads
    "small": (28, 96, 3, 4),
    "full": (14, 768, 12, 12),
}
GAIN: Final = 0.5
"""Of the Xavier initialisation: a deep stack starts out close to the identity."""


class Classifier(nn.Module):
    """Images ``[B, 3, S, S]`` -> class scores ``[B, classes]``; refuses any other S.

    Args:
        image: S, in pixels.
        body: the network behind it.
    """

    def __init__(self, image: int, body: nn.Module) -> None:
        super().__init__()
        self.shape = (CHANNELS, image, image)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Class scores before the softmax.

        Raises:
            ValueError: the images have another size than the model was made for.
        """
        # timm asserts instead, which is no error that a training loop can tell from a bug.
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"expected images [B, {', '.join(map(str, self.shape))}], got {list(images.shape)}"
            )
        return cast(Tensor, self.body(images))


class VisionTransformer(nn.Module):
    """Patches, encoder, mean, head: ``[B, 3, S, S]`` -> ``[B, classes]``."""

    def __init__(
        self, classes: int, image: int, patch: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        if image < patch or image % patch:
            raise ConfigError(
                f"images of {image} pixels cannot be cut into patches of {patch}",
                fix=f"use a multiple of {patch}, e.g. options.image=224",
            )
        self.patches = nn.Conv2d(CHANNELS, width, patch, patch)
        encoder = Encoder(width, depth, heads, 4 * width, gain=GAIN)
        # There are always as many patches: their positions are a constant, not computed by a phone.
        self.encoder = encoder.fixed((image // patch) ** 2)
        self.head = nn.Linear(width, classes)
        for layer in (self.patches, self.head):
            nn.init.xavier_uniform_(layer.weight, GAIN)

    def forward(self, images: Tensor) -> Tensor:
        encoded = self.encoder(self.patches(images).flatten(2))
        return cast(Tensor, self.head(encoded.mean(dim=2)))


def build(classes: int = 30, image: int = 224, size: str = "small") -> Classifier:
    """A freshly initialised model; seed torch first to make it repeatable.

    Args:
        classes: number of classes.
        image: height and width in pixels.
        size: "small", "full", or "timm:NAME" for a model of the timm library, e.g.
            "timm:eva02_base_patch14_224"; no weights are fetched.

    Raises:
        ConfigError: there is no such size, or the image cannot be cut into its patches.
        MissingError: timm is asked for and not installed.
    """
    if size.startswith(TIMM):
        try:
            import timm
        except ImportError as error:
            raise MissingError(
                f"{size} needs the timm library", fix="pip install timm, or use options.size=full"
            ) from error
        made = timm.create_model(
            size.removeprefix(TIMM), pretrained=False, num_classes=classes, img_size=image
        )
        return Classifier(image, made)
    if size not in SIZES:
        raise ConfigError(f"no size {size!r}", fix=f"use one of {', '.join(SIZES)}, timm:NAME")
    return Classifier(image, VisionTransformer(classes, image, *SIZES[size]))
