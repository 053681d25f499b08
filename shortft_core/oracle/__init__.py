"""The held-out judge of the `shapes` world: what a caption asks for, what an image shows."""
