"""Predict the memory and the time of a recipe before anything loads (`vglm plan`).

setting         what a recipe asks for: model, method, trainer and lengths of the data, read without weights
rehearsal       a step on the meta device, with every tensor counted
budget          the bytes of answering and of training, by what they are for
machine         what this machine has
schedule        steps and hours, from measured rates
plan            all of it together
suggestions     what would make it fit, each recomputed
measurement     the same steps for real, beside what was predicted
page            the table of 80 columns
command         `vglm plan`
"""
