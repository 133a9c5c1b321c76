"""Steps that bring rows into a pipeline."""
