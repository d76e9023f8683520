"""Where does an artefact leave PyTorch? One table for every format, first bad row first.

`taps` says what a format has to give: its tensors, in the order it computes them, and their values.
`reference` runs the model as torch's graph, operator by operator. `survey` runs both on real
samples, `alignment` matches the tensors and measures, and `minimise` cuts out the smallest piece
that fails. The command line is `exporter.localize.command`.

What it leaves out: kernels that do not run on this machine. Core ML's tensors are those of our
interpreter, and XNNPACK's those that it gives on this machine's processor.
"""
