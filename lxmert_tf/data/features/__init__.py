"""Files of region features: the original TSV, the HDF5 files built of it, and the layouts of other programs."""
