"""The paper's tables on the bundled model: every method with the same compute."""
