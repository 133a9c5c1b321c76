"""Runs a plan: a scheduler that is a pure state machine, and executors that do what it says."""
