"""Region features, annotations and answer tables in the file formats of the original LXMERT."""
