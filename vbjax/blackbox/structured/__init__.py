"""Normals whose precision matrix is sparse: its pattern, its factor in blocks, and the scale L of q."""
