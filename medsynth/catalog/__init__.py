"""The catalog: the table of source tiles, how it is made and how tiles are read back."""
