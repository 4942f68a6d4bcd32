"""Synthetic data by seed: scenes for the tiny model and its few-shot task, phantom radiographs, variable stars.

Scenes: `scenes` says what is in a picture, `render` draws it, `questions` asks about it in Chinese and English,
`pretraining` puts the three together as an endless supply of samples, and `background` writes the few-shot set.
Radiographs: `radiographs`, `radiograph_render`, `radiograph_reports`, `radiograph_studies` in the same parts.
Stars: `lightcurves` simulates them, `star_dialogues` asks about them. `command` is what the command lines share.
"""

from vglm.data.loading import SYNTHETIC_MARKER as MARKER

__all__ = ["MARKER"]
