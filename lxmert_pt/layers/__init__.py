"""The layers of LXMERT, from primitive to whole: embeddings, attention, transformer, heads."""
