"""Who listens to a run's events: progress, recorder, report; and how plans and graphs are shown."""
