"""LXMERT checkpoints between PyTorch and Keras: one table of names, readers and writers."""
