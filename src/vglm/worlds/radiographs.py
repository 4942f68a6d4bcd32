"""A synthetic chest: one imaginary patient's findings, of which pictures and reports are made.

    Chest(heart="enlarged", opacity=Opacity("right", "middle"), effusion="left", pneumothorax="none",
          device="pacemaker", device_side="left", anatomy_seed=71)

The findings are drawn independently of each other, so that one finding gives no information about another. One
combination is excluded, since a radiograph could not show it: an opacity in a lower zone beneath fluid of the same
side.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Heart = Literal["normal", "enlarged"]
Side = Literal["left", "right"]
Sides = Literal["none", "left", "right", "both"]
Zone = Literal["upper", "middle", "lower"]
Device = Literal["none", "pacemaker", "catheter"]
View = Literal["frontal", "lateral"]

SIDES: tuple[Side, ...] = ("left", "right")
ZONES: tuple[Zone, ...] = ("upper", "middle", "lower")
VIEWS: tuple[View, ...] = ("frontal", "lateral")

ENLARGED = 0.25
OPAQUE = 0.25
EFFUSED = 0.2
BOTH_SIDES = 0.2
"""Share of the effusions that are on both sides."""
COLLAPSED = 0.2
DEVICE = 0.3
"""How often each finding occurs; a chest without the first four, 36% of all, is normal."""


@dataclass(frozen=True, slots=True)
class Opacity:
    """The position of a patchy opacity.

    Attributes:
        side: The patient's side; his left is on the right of a frontal picture.
        zone: Third of the lung.
    """

    side: Side
    zone: Zone


@dataclass(frozen=True, slots=True)
class Chest:
    """Everything the pictures of a study are made from; equal chests give equal pictures.

    Attributes:
        heart: Its size. Cardiothoracic ratios are 0.40 to 0.47, or 0.58 to 0.65: borderline hearts do not occur.
        opacity: A patchy opacity, or None.
        effusion: Sides with fluid in the pleural space.
        pneumothorax: Side with air in the pleural space; never both.
        device: What was implanted or inserted; a device alone is not an abnormality.
        device_side: Side of the pacemaker's box, or the side from which the catheter enters.
        anatomy_seed: Seed of the patient's build, of the exact places and extents of the findings, and of the noise.
    """

    heart: Heart
    opacity: Opacity | None
    effusion: Sides
    pneumothorax: Sides
    device: Device
    device_side: Side
    anatomy_seed: int

    @property
    def is_abnormal(self) -> bool:
        """Whether there is any finding besides a device."""
        return (
            self.heart != "normal" or self.opacity is not None or self.effusion != "none" or self.pneumothorax != "none"
        )

    def has_effusion(self, side: Side) -> bool:
        """Whether there is fluid on one side."""
        return self.effusion in (side, "both")


def sample_chest(rng: np.random.Generator) -> Chest:
    """Draw a patient; `dataclasses.replace` fixes a finding afterwards."""
    heart, opaque, effused, both, collapsed, device = rng.random(6).tolist()
    opacity_side, effusion_side, collapsed_side, device_side = (SIDES[int(i)] for i in rng.integers(2, size=4))
    zone = ZONES[int(rng.integers(3))]
    chest = Chest(
        heart="enlarged" if heart < ENLARGED else "normal",
        opacity=Opacity(opacity_side, zone) if opaque < OPAQUE else None,
        effusion="none" if effused >= EFFUSED else "both" if both < BOTH_SIDES else effusion_side,
        pneumothorax=collapsed_side if collapsed < COLLAPSED else "none",
        device="none" if device >= DEVICE else "pacemaker" if device < DEVICE / 2 else "catheter",
        device_side=device_side,
        anatomy_seed=int(rng.integers(2**32)),
    )
    if chest.opacity is not None and chest.opacity.zone == "lower" and chest.has_effusion(chest.opacity.side):
        return replace(chest, opacity=Opacity(chest.opacity.side, ZONES[int(rng.integers(2))]))
    return chest
