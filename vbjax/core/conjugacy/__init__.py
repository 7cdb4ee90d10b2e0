"""The examination of a model of one's own before its first fit: what is not conjugate is refused, by name."""
