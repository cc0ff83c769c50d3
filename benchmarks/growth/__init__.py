"""The load of systems that are too large for one machine, computed from measured costs."""
