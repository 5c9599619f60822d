"""Made-up sets for every task: pictures of coloured shapes, in the file formats of the original LXMERT.

Every scene is a pure function of (seed, index), so files are written one after the other in constant memory, and the
same arguments always give the same set. `dataset.write_dataset` writes a whole one.

Shapes: N = boxes per image, D = feature dimension.
"""
