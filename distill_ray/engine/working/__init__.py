"""What a replica does, whatever process it is in: reads, computes, encodes, writes. Begin with `worker`."""
