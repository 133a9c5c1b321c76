"""Why a step is no hit: what changed since it was computed last, in words and as data."""
