"""The layers of LXMERT, primitive to whole: embeddings, attention, transformer, heads."""
