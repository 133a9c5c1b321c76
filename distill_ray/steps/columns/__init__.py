"""Steps that choose and rename columns."""
