"""The held-out judge of the bundled `shapes` world: what a caption asks for and what an image shows."""
