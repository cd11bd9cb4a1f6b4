"""One module for each framework; each runs as a process of its own, started by `protocol.Worker`."""
