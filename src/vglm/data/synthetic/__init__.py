"""A small world of drawn scenes, made by seed: the tiny model's pre-training data and the demo's few-shot task.

`scenes` says what is in a picture, `render` draws it, `questions` asks about it in Chinese and English, `pretraining`
puts the three together as an endless supply of samples, and `background` writes the few-shot set. Needs numpy and
Pillow only.
"""
