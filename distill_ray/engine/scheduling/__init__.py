"""What runs next: a pure state machine without rows, I/O or a clock. Begin with `scheduler`."""
