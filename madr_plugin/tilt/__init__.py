"""Shows D more of the real images that the generator leaves out."""
