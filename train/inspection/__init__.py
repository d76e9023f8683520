"""Checkpoints in the wild: is this file fit to be trained from, exported or shipped?

`verdict` says what is known of a file and judges its tensors, `flatten` makes plain tensors of
whatever a checkpoint nests, `losses` reads what a run recorded of itself, `files` reads the kinds
that training itself knows (safetensors and torch's), `kinds` finds the inspectors of all kinds,
other packages' included, and what there is to inspect below a folder.

What it leaves out: whether the weights are any good.
"""
